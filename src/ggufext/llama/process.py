"""Child processes that run llama.cpp: how they start, and what is said of their end."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING, Any, BinaryIO

from ggufext.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from types import TracebackType


_LAST_LINES = 3

#: Where the sources lay on the machine that compiled llama.cpp: noise before ``src/…``.
_BUILD_FOLDER = re.compile(r"\S*/vendor/llama\.cpp/")


def start_child(module: str, log: BinaryIO, *, hears_interrupt: bool) -> subprocess.Popen[bytes]:
    """Start ``main()`` of a module, asked and answering through pipes.

    Parameters
    ----------
    module : str
        Full name.
    log : file
        Takes standard error.
    hears_interrupt : bool
        Whether Ctrl-C at the terminal reaches the child too.
    """
    # The child imports what this process would import, whatever started this process.
    program = f"import sys; sys.path[:] = {sys.path!r}; from {module} import main; main()"
    return subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        env=os.environ | {"GGML_NO_BACKTRACE": "1"},
        start_new_session=not hears_interrupt,
    )


def how_it_ended(status: int) -> str:
    """An exit status in words."""
    return f"ended with status {status}" if status >= 0 else f"was ended by {_signal(-status)}"


def last_words(log: Sequence[str]) -> str:
    """The end of llama.cpp's log in one line, the last line first; empty for an empty log."""
    lines = [_BUILD_FOLDER.sub("", line).strip() for line in log if line.strip()]
    return " | ".join(lines[: -_LAST_LINES - 1 : -1])


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


class ProbeProcess:
    """A child that serves one request after another; one that died is replaced at the next.

    Starting Python and llama.cpp costs a second on a busy machine, a tiny model a few
    milliseconds: whoever asks about many models keeps one process.
    """

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None
        self._log: BinaryIO | None = None

    def __enter__(self) -> ProbeProcess:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the child; the next request starts another."""
        if self._child is not None:
            self._child.communicate()  # closes its standard input, which ends it
        if self._log is not None:
            self._log.close()
        self._child = self._log = None

    def ask(self, path: Path, request: dict[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
        """Send one request; its reply, and what llama.cpp's log said meanwhile.

        Raises
        ------
        EngineError
            ``engine_died`` with the last lines of the log, or the error in the reply.
        """
        child, log = self._started()
        assert child.stdin is not None
        assert child.stdout is not None
        start = log.seek(0, os.SEEK_END)
        try:
            child.stdin.write(json.dumps(request).encode() + b"\n")
            child.stdin.flush()
            answer = child.stdout.readline()
        except BrokenPipeError:
            answer = b""
        status = None if answer else child.wait()
        log.seek(start)
        lines = tuple(log.read().decode(errors="replace").splitlines())
        if status is not None:
            child.stdin.close()
            child.stdout.close()
            self._child = None
            self.close()
            raise EngineError(code="engine_died", path=path, message=_death(status, lines))
        reply: dict[str, Any] = json.loads(answer)
        if error := reply.get("error"):
            raise EngineError(code=error["code"], path=path, message=error["message"])
        return reply, lines

    def _started(self) -> tuple[subprocess.Popen[bytes], BinaryIO]:
        if self._child is None or self._log is None:
            self._log = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as the child)
            self._child = start_child("ggufext.llama.probe", self._log, hears_interrupt=True)
        return self._child, self._log


def _death(status: int, log: Sequence[str]) -> str:
    said = last_words(log) or "empty"
    return f"llama.cpp's process {how_it_ended(status)}; its log, last line first: {said}"
