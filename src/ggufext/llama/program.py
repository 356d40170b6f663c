"""A program of the user's that runs for as long as it is wanted, and never longer than we do."""

from __future__ import annotations

import subprocess
from contextlib import suppress
from typing import TYPE_CHECKING

from ggufext.llama.keeper import BY_SIGNAL
from ggufext.llama.log import Log
from ggufext.llama.process import start_child

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


#: Lines that tell of its end: llama-server says the cause first, and then what it could not do.
_LAST_LINES = 8


class Program:
    """A running program; what it writes goes to its log, and it reads nothing.

    It ends when it is closed, and with this process, even if that is killed.

    Parameters
    ----------
    command : sequence of str
        The program, and what stands behind it on the command line.
    environment : mapping

    Attributes
    ----------
    log : Log
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self.log = Log(_LAST_LINES)
        self._keeper = start_child(
            "ggufext.llama.keeper",
            self.log,
            command,
            stdout=self.log.file,
            environment=environment,
        )

    def status(self, seconds: float) -> int | None:
        """Wait for its end.

        Parameters
        ----------
        seconds : float
            At most so long.

        Returns
        -------
        int or None
            Its exit status, of a signal the negative number; None where it goes on.
        """
        try:
            status = self._keeper.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        return status if status <= BY_SIGNAL else BY_SIGNAL - status

    def close(self) -> None:
        """End it at once, with what it started."""
        assert self._keeper.stdin is not None
        with suppress(BrokenPipeError):
            self._keeper.stdin.close()
        self._keeper.wait()
        self.log.close()
