"""What a child process leaves: a log that tells of its end, and no core dump."""

from __future__ import annotations

import os
import re
import signal
import tempfile
from typing import TYPE_CHECKING

from ggufext.errors import EngineError, printable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

#: Bytes at the end of the log, and lines of them, that tell of a death.
_LOG_TAIL, _LAST_LINES = 65_536, 3

#: Most characters of a line that are told: a program may write anything.
_LONGEST_LINE = 300

#: Where the sources lay on the machine that compiled llama.cpp: noise before ``src/…``.
_BUILD_FOLDER = re.compile(r"\S*/vendor/llama\.cpp/")

_NO_MEMORY = re.compile(r"bad_alloc|failed to allocate|out of memory|cannot allocate", re.I)


class Log:
    """A file without a name that a child process writes to, gone when it is closed.

    Attributes
    ----------
    file : BinaryIO
        For the child.
    """

    def __init__(self) -> None:
        self.file = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as the child)

    @property
    def size(self) -> int:
        """Bytes so far."""
        return os.fstat(self.file.fileno()).st_size

    def lines(self, start: int = 0) -> tuple[str, ...]:
        """Lines from a byte on."""
        # The child writes where the file's position is: it must not be moved.
        text = os.pread(self.file.fileno(), max(0, self.size - start), start)
        return tuple(text.decode(errors="replace").splitlines())

    def last_words(self, start: int = 0) -> str:
        """The end of the log in one line, the last line first: what came from a byte on, if any."""
        said = _in_one_line(self.lines(start))
        return said or _in_one_line(self.lines(max(0, self.size - _LOG_TAIL))) or "empty"

    def death(self, who: str, status: int, *, path: Path | None, start: int = 0) -> EngineError:
        """How a process ended, as an error.

        Parameters
        ----------
        who : str
            The process.
        status : int
            Its exit status; of a signal the negative number.
        path : Path or None
            The file that it ran.
        start : int
            Where the log begins to tell of it, bytes.

        Returns
        -------
        EngineError
            ``engine_died``; ``out_of_memory`` where the log says so.
        """
        said = self.last_words(start)
        how = f"ended with status {status}" if status >= 0 else f"was ended by {_signal(-status)}"
        code = "engine_died"
        if _NO_MEMORY.search(said):
            code = "out_of_memory"
        elif status == -signal.SIGKILL:
            how += ", which is how the kernel stops a process when memory runs out"
        return EngineError(
            code=code, path=path, message=f"{who} {how}; its log, last line first: {said}"
        )

    def close(self) -> None:
        """Forget it."""
        self.file.close()


def forbid_core_dump() -> None:
    """A crash is expected and reported; nobody wants gigabytes of it on disk."""
    try:
        import resource
    except ImportError:  # not on Windows
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _in_one_line(log: Sequence[str]) -> str:
    lines = [_BUILD_FOLDER.sub("", line).strip() for line in log if line.strip()]
    return " | ".join(printable(line, _LONGEST_LINE) for line in lines[: -_LAST_LINES - 1 : -1])


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
