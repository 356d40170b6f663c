"""What a command says on standard error while it works for longer than two seconds."""

from __future__ import annotations

import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from ggufext.errors import printable
from ggufext.text import binary_size, duration

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.progress import Progress

#: Seconds of work about which nothing is said.
_PATIENCE = 2.0

#: Seconds between two lines where nobody watches a bar, and between two pictures of one.
_BETWEEN_LINES, _BETWEEN_PICTURES = 10.0, 0.2


@dataclass(frozen=True, slots=True)
class Told:
    """What is being done, and how far it is.

    Attributes
    ----------
    what : str
        Each has a time of its own, from when it was first told.
    done : int
    total : int or None
        None where it is not known.
    unit : str
        Of both; ``"bytes"`` are shown with binary multiples.
    detail : str
        What `done` is about at the moment.
    expected : float or None
        Seconds that all of it takes, as far as that is known beforehand.
    """

    what: str
    done: int = 0
    total: int | None = None
    unit: str = ""
    detail: str = ""
    expected: float | None = None

    def line(self, seconds: float, since: float) -> str:
        """It as a line.

        Parameters
        ----------
        seconds : float
            Since the beginning.
        since : float
            Seconds since it was told, ≤ `seconds`: they count as work, or the time left would
            grow until the next word.
        """
        detail = f" ({self.detail})" if self.detail else ""
        parts = [*self._amount(), self._time(seconds, since)]
        return f"{printable(self.what + detail, 120)}: {', '.join(parts)}"

    def _amount(self) -> Iterator[str]:
        if self.total is not None:
            number = binary_size if self.unit == "bytes" else "{:,}".format
            unit = f" {self.unit}" if self.unit not in {"", "bytes"} else ""
            yield f"{number(self.done)} of {number(self.total)}{unit}"
        elif self.done:
            yield binary_size(self.done)

    def _time(self, seconds: float, since: float) -> str:
        left = None if self.expected is None else self.expected - seconds
        if self.total is not None and self.done >= self.total:
            return f"finishing, {duration(seconds)} so far"
        if self.done and self.total is not None:
            left = (seconds - since) / self.done * (self.total - self.done) - since
        if left is None or left <= 0:
            return f"{duration(seconds)} so far"
        return f"about {duration(left)} left"


class Wait:
    """What is being done and how far it is: told by who works, shown by a thread of its own.

    Telling costs about a microsecond, so that nobody has to choose how often.

    Parameters
    ----------
    what : str
        The beginning; see `Told`.
    """

    def __init__(self, what: str) -> None:
        self._told = Told(what)
        self._heard = time.monotonic()
        self._began = {what: self._heard}
        self._screen = threading.Lock()
        self._bar: Progress | None = None

    def tell(self, told: Told) -> None:
        """Say what is being done and how far it is."""
        self._heard = time.monotonic()
        self._began.setdefault(told.what, self._heard)
        self._told = told

    @contextmanager
    def silent(self) -> Iterator[None]:
        """Leave the terminal to somebody else: to a question, or to results."""
        with self._screen:
            if self._bar is not None:
                self._bar.stop()
            try:
                yield
            finally:
                if self._bar is not None:
                    self._bar.start()

    def line(self) -> str:
        """How far it is, in a line."""
        now, told = time.monotonic(), self._told
        return told.line(now - self._began[told.what], max(now - self._heard, 0.0))

    def show(self, ended: threading.Event) -> None:
        """Show it until the end: a bar on a terminal, lines elsewhere."""
        if ended.wait(_PATIENCE):
            return
        if sys.stderr.isatty():
            self._draw(ended)
            return
        while not ended.is_set():
            with self._screen:
                click.echo(self.line(), err=True)
            ended.wait(_BETWEEN_LINES)

    def _draw(self, ended: threading.Event) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        bar = Progress(
            BarColumn(bar_width=20),
            TextColumn("{task.description}", markup=False),
            console=Console(stderr=True),
            transient=True,
            auto_refresh=False,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        task = bar.add_task("", total=None)
        with self._screen:
            bar.start()
            self._bar = bar
        while not ended.is_set():
            with self._screen:
                told = self._told
                bar.update(task, completed=told.done, total=told.total, description=self.line())
                bar.refresh()
            ended.wait(_BETWEEN_PICTURES)
        with self._screen:
            self._bar = None
            bar.stop()


@contextmanager
def waiting(what: str) -> Iterator[Wait]:
    """Show what is being done, and what is told of it, once it takes longer than two seconds."""
    wait, ended = Wait(what), threading.Event()
    # Not joined when the process ends in the middle of it.
    thread = threading.Thread(target=wait.show, args=(ended,), daemon=True)
    thread.start()
    try:
        yield wait
    finally:
        ended.set()
        thread.join()
