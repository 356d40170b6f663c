"""Child processes that run llama.cpp: how they start, and what is said of their end."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Sequence

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
