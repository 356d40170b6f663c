"""What a child process leaves: a log that tells of its end."""

from __future__ import annotations

import os
import re
import tempfile
from typing import TYPE_CHECKING

from ggufext.errors import EngineError, printable
from ggufext.system import system

if TYPE_CHECKING:
    from pathlib import Path

#: Bytes at the end of the log that tell of a death.
_LOG_TAIL = 65_536

#: Most characters of a line that are told: a program may write anything.
_LONGEST_LINE = 300

#: Noise: where the sources lay on the machine that compiled llama.cpp, before ``src/…``; the time
#: and the level that llama-server begins its lines with.
_NOISE = re.compile(r"\S*/vendor/llama\.cpp/|^[\d.]+ [A-Z] (?=\S)")

_NO_MEMORY = re.compile(r"bad_alloc|failed to allocate|out of memory|cannot allocate", re.I)


class Log:
    """A file without a name that a child process writes to, gone when it is closed.

    Parameters
    ----------
    last_lines : int
        Lines of it that tell of an end.

    Attributes
    ----------
    file : BinaryIO
        For the child.
    """

    def __init__(self, last_lines: int = 3) -> None:
        self._last_lines = last_lines
        self.file = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as the child)

    @property
    def size(self) -> int:
        """Bytes so far."""
        return os.fstat(self.file.fileno()).st_size

    def lines(self, start: int = 0) -> tuple[str, ...]:
        """Lines from a byte on."""
        # The child writes where the file's position is: it must not be moved.
        text = system.read_at(self.file.fileno(), max(0, self.size - start), start)
        return tuple(text.decode(errors="replace").splitlines())

    def last_words(self, start: int = 0) -> str:
        """The end of the log in one line, the last line first: what came from a byte on, if any."""
        return self._in_one_line(start) or self._in_one_line(0) or "empty"

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
        signal = system.killed_by(status)
        how = f"was ended by {signal}" if signal else f"ended with status {status}"
        code = "engine_died"
        if _NO_MEMORY.search(said):
            code = "out_of_memory"
        elif system.killed_for_memory(status):
            how += ", which is how the kernel stops a process when memory runs out"
        return EngineError(
            code=code, path=path, message=f"{who} {how}; its log, last line first: {said}"
        )

    def close(self) -> None:
        """Forget it."""
        self.file.close()

    def _in_one_line(self, start: int) -> str:
        lines = self.lines(max(start, self.size - _LOG_TAIL))
        found = [_NOISE.sub("", line).strip() for line in lines if line.strip()]
        last = dict.fromkeys(found[::-1])  # said twice, told once
        told = list(last)[: self._last_lines]
        return " | ".join(printable(line, _LONGEST_LINE) for line in told)
