"""llama.cpp's own server as the package xllamacpp brings it: run as a script, it is llama-server.

The package starts the server from parameters in memory, of which its Python code shows a part.
llama.cpp's own parser of the command line is in its library too, and fills all of them.
"""

from __future__ import annotations

import ctypes
import signal
import sys

import xllamacpp

#: ``common_params_parse(int, char **, common_params &, llama_example, void (*)(int, char **))``
#: as GCC and Clang write it, and LLAMA_EXAMPLE_SERVER (common/arg.h, common/common.h).
_PARSE = "_Z19common_params_parseiPPcR13common_params13llama_examplePFviS0_E"
_SERVER = 12


def main() -> None:
    """Serve until killed."""
    library = ctypes.CDLL(xllamacpp.xllamacpp.__file__)
    parse = getattr(library, _PARSE)
    parse.restype = ctypes.c_bool
    arguments = [argument.encode() for argument in sys.argv]
    parameters = xllamacpp.CommonParams()
    # Its first member, behind what every object begins with (xllamacpp.pyx).
    address = ctypes.c_void_p(id(parameters) + object.__basicsize__)
    held = (ctypes.c_char_p * (len(arguments) + 1))(*arguments)
    if not parse(len(arguments), held, address, _SERVER, None):
        sys.exit(1)
    server = xllamacpp.Server(parameters)
    print("listening on", server.listening_address, flush=True)
    while True:
        signal.pause()


if __name__ == "__main__":
    main()
