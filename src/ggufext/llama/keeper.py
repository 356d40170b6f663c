"""Runs a program for as long as the process that asked for it: `ggufext.llama.program` starts it.

No system tells a program that the process which started it was killed. Standard input tells it
here: it ends with that process, however that ends.
"""

from __future__ import annotations

import os
import subprocess
import sys
from threading import Thread

from ggufext.system import system

#: What shells add to the number of a signal to tell it as a status.
BY_SIGNAL = 128


def main() -> None:
    """Run the program of the command line; end with its status."""
    system.forbid_core_dump()
    # A group of its own: a program may be a script that starts another.
    try:
        child = system.start_apart(sys.argv[1:], stdin=subprocess.DEVNULL)
    except OSError as error:
        sys.exit(str(error))
    Thread(target=_end_with_input, args=(child.pid,), daemon=True).start()
    status = child.wait()
    system.end_with_children(child.pid)
    os._exit(status if status >= 0 else BY_SIGNAL - status)


def _end_with_input(process: int) -> None:
    while os.read(0, 1):
        pass
    system.end_with_children(process)
