"""llama.cpp in a child process: its crash is an EngineError here, and nothing else."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from typing import IO, TYPE_CHECKING, Any

from ggufext.errors import EngineError
from ggufext.llama.log import Log
from ggufext.llama.protocol import receive, send
from ggufext.system import system

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Hello:
    """What the child says of itself.

    Attributes
    ----------
    path : str
        llama.cpp's library.
    package, version : str
        What brings it, as ``"llama-cpp-python"``; ``""`` for a library that was named.
    release : str
        Of llama.cpp.
    system : str
        Processor features that llama.cpp was built for.
    devices : list of str
        Descriptions of what it can compute on, the processor included.
    gpu, rpc : bool
        Whether layers can be given to a device, and to workers on other machines.
    device_memory, available : int
        Free bytes of the devices and of this machine, as far as the child may take them.
    """

    path: str
    package: str
    version: str
    release: str
    system: str
    devices: list[str]
    gpu: bool
    rpc: bool
    device_memory: int
    available: int

    @property
    def versions(self) -> dict[str, str]:
        """Release of llama.cpp, and version of its package if there is one."""
        package = {self.package.replace("-", "_"): self.version} if self.package else {}
        return {"llama_cpp": self.release, **package}

    @property
    def features(self) -> str:
        """What answers depend on beside the release: processor features, one after another."""
        words = self.system.replace(" = 1", "").replace(" :", ":").replace("|", " ").split()
        return " ".join(words)


class LlamaProcess:
    """A child process that runs llama.cpp, started at the first request.

    Starting Python and llama.cpp costs a second on a busy machine, a tiny model a few
    milliseconds: whoever asks about many models keeps one process. One that died is replaced at
    the next request, with nothing loaded.

    Parameters
    ----------
    llama_cpp : Path, optional
        The library, or the folder of a build that holds it; the installed one when absent.
    """

    def __init__(self, llama_cpp: Path | None = None) -> None:
        # Where only a name stands the loader would look elsewhere.
        self._llama_cpp = llama_cpp.absolute() if llama_cpp else None
        self._child: subprocess.Popen[bytes] | None = None
        self._log: Log | None = None
        self._before = 0  # bytes of the log when the last request was made

    def __enter__(self) -> LlamaProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def hello(self, path: Path | None = None, *, rpc: Sequence[str] = ()) -> Hello:
        """What the child says of itself, once it can use RPC workers at these addresses.

        Raises
        ------
        EngineError
            As `request`; ``no_rpc``, ``engine_unreachable``.
        """
        reply, _ = self.request(path, "hello", rpc=list(rpc))
        return Hello(**reply)

    def request(
        self,
        path: Path | None,
        operation: str,
        payload: bytes = b"",
        *,
        computed: Callable[[int], None] = lambda _: None,
        **fields: Any,
    ) -> tuple[dict[str, Any], bytes]:
        """Have an operation of `ggufext.llama.child` done.

        Parameters
        ----------
        path : Path or None
            The file that an error names.
        operation : str
        payload : bytes
        computed : callable
            Hears now and then how many tokens of a prompt are computed.
        fields
            Of the operation; JSON values or a `LoadRequest`.

        Returns
        -------
        dict, bytes
            The reply and its payload.

        Raises
        ------
        EngineError
            The refusal in the reply; ``engine_died`` or ``out_of_memory`` with the last lines of
            the log when llama.cpp ends its process.
        """
        child, log = self._started()
        assert child.stdin is not None
        assert child.stdout is not None
        self._before = log.size
        try:
            try:
                send(child.stdin, {"operation": operation, **fields}, payload)
                while (message := receive(child.stdout)) and "computed" in message[0]:
                    computed(message[0]["computed"])
            except BrokenPipeError:
                message = None
            if message is None:
                status = child.wait()
                who = f"the process of {self._llama_cpp or 'llama.cpp'}"
                raise log.death(who, status, path=path, start=self._before)
        except BaseException:
            # Interrupted, its reply would be taken for the next request's.
            self.close()
            raise
        reply, payload = message
        if error := reply.get("error"):
            raise EngineError(code=error["code"], path=path, message=error["message"])
        return reply, payload

    def log(self) -> tuple[str, ...]:
        """Lines that llama.cpp logged since the last request was made."""
        assert self._log is not None
        return self._log.lines(self._before)

    def close(self) -> None:
        """End the child at once."""
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            for stream in (self._child.stdin, self._child.stdout):
                assert stream is not None
                with suppress(BrokenPipeError):
                    stream.close()
        if self._log is not None:
            self._log.close()
        self._child = self._log = None

    def _started(self) -> tuple[subprocess.Popen[bytes], Log]:
        if self._child is None or self._log is None:
            self._log = Log()
            named = [os.fspath(self._llama_cpp)] if self._llama_cpp else []
            self._child = start_child(
                "ggufext.llama.child", self._log, named, stdout=subprocess.PIPE
            )
        return self._child, self._log


def start_child(
    module: str,
    log: Log,
    arguments: Sequence[str] = (),
    *,
    stdout: int | IO[bytes],
    environment: Mapping[str, str] = os.environ,
) -> subprocess.Popen[bytes]:
    """Start ``main`` of a module of this package in a process that reads from a pipe.

    Parameters
    ----------
    module : str
    log : Log
        Gets its standard error.
    arguments : sequence of str
    stdout : int or file
        See `subprocess.Popen`.
    environment : mapping
    """
    # The child imports what this process would import, whatever started this process.
    program = f"import sys; sys.path[:] = {sys.path!r}; from {module} import main; main()"
    # Ctrl-C is for this process, which then ends the child.
    return system.start_apart(
        [sys.executable, "-c", program, *arguments],
        stdin=subprocess.PIPE,
        stdout=stdout,
        stderr=log.file,
        environment={**_with_openmp(environment), "GGML_NO_BACKTRACE": "1"},
    )


def _with_openmp(environment: Mapping[str, str]) -> Mapping[str, str]:
    """Where the system has no GNU OpenMP library, one that cmeel-libomp brings is found.

    The wheel of xllamacpp needs one and holds none.
    """
    try:
        ctypes.CDLL("libgomp.so.1")
    except OSError:
        pass
    else:
        return environment
    try:
        folder = distribution("cmeel-libomp").locate_file("cmeel.prefix/lib")
    except PackageNotFoundError:
        return environment
    folders = [str(folder), environment.get("LD_LIBRARY_PATH", "")]
    return {**environment, "LD_LIBRARY_PATH": ":".join(filter(None, folders))}
