"""llama.cpp in a child process: its crash is an EngineError here, and nothing else."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

from ggufext.errors import EngineError
from ggufext.llama.protocol import receive, send

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

#: Bytes at the end of the log, and lines of them, that tell of a death.
_LOG_TAIL, _LAST_LINES = 65_536, 3

#: Where the sources lay on the machine that compiled llama.cpp: noise before ``src/…``.
_BUILD_FOLDER = re.compile(r"\S*/vendor/llama\.cpp/")

_NO_MEMORY = re.compile(r"bad_alloc|failed to allocate|out of memory|cannot allocate", re.I)


@dataclass(frozen=True, slots=True)
class Hello:
    """What the child says of itself.

    Attributes
    ----------
    package, version : str
        What brings llama.cpp, as ``"llama-cpp-python"``.
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

    package: str
    version: str
    release: str
    system: str
    devices: list[str]
    gpu: bool
    rpc: bool
    device_memory: int
    available: int


class LlamaProcess:
    """A child process that runs llama.cpp, started at the first request.

    Starting Python and llama.cpp costs a second on a busy machine, a tiny model a few
    milliseconds: whoever asks about many models keeps one process. One that died is replaced at
    the next request, with nothing loaded.
    """

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None
        self._log: BinaryIO | None = None
        self._before = 0  # bytes of the log when the last request was made

    def __enter__(self) -> LlamaProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def process_id(self) -> int | None:
        """Of the child; None where there is none."""
        return self._child.pid if self._child else None

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
        self, path: Path | None, operation: str, payload: bytes = b"", **fields: Any
    ) -> tuple[dict[str, Any], bytes]:
        """Have an operation of `ggufext.llama.child` done.

        Parameters
        ----------
        path : Path or None
            The file that an error names.
        operation : str
        payload : bytes
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
        self._before = _size(log)
        try:
            try:
                send(child.stdin, {"operation": operation, **fields}, payload)
                message = receive(child.stdout)
            except BrokenPipeError:
                message = None
            if message is None:
                raise self._death(child.wait(), path)
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
        return self._lines(self._before)

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

    def _started(self) -> tuple[subprocess.Popen[bytes], BinaryIO]:
        if self._child is None or self._log is None:
            self._log = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as the child)
            self._child = _start(self._log)
        return self._child, self._log

    def _lines(self, start: int) -> tuple[str, ...]:
        assert self._log is not None
        # The child writes where the file's position is: it must not be moved.
        text = os.pread(self._log.fileno(), _size(self._log) - start, start)
        return tuple(text.decode(errors="replace").splitlines())

    def _death(self, status: int, path: Path | None) -> EngineError:
        assert self._log is not None
        said = _last_words(self.log()) or _last_words(
            self._lines(max(0, _size(self._log) - _LOG_TAIL))
        )
        how = f"ended with status {status}" if status >= 0 else f"was ended by {_signal(-status)}"
        code = "engine_died"
        if _NO_MEMORY.search(said):
            code = "out_of_memory"
        elif status == -signal.SIGKILL:
            how += ", which is how the kernel stops a process when memory runs out"
        return EngineError(
            code=code,
            path=path,
            message=f"llama.cpp's process {how}; its log, last line first: {said or 'empty'}",
        )


def _start(log: BinaryIO) -> subprocess.Popen[bytes]:
    # The child imports what this process would import, whatever started this process.
    program = (
        f"import sys; sys.path[:] = {sys.path!r}; from ggufext.llama.child import main; main()"
    )
    return subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        env=os.environ | {"GGML_NO_BACKTRACE": "1"},
        # Ctrl-C is for this process, which then ends the child.
        start_new_session=True,
    )


def _size(file: BinaryIO) -> int:
    return os.fstat(file.fileno()).st_size


def _last_words(log: Sequence[str]) -> str:
    """The end of llama.cpp's log in one line, the last line first; empty for an empty log."""
    lines = [_BUILD_FOLDER.sub("", line).strip() for line in log if line.strip()]
    return " | ".join(lines[: -_LAST_LINES - 1 : -1])


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
