"""How far a long run is, on standard error: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

import click

from ggufext.errors import printable
from ggufext.text import duration

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.progress import Progress

#: Seconds between two lines where nobody watches a bar.
_BETWEEN_LINES = 10.0

#: Seconds over which a bar's speed is averaged: a question of a long text may take minutes.
_AVERAGED = 1800.0


class Shown(Protocol):
    """What shows how far a run is."""

    def begin(self, said: str, tokens: int, *, is_news: bool) -> None:
        """Say what is done and how many tokens it takes; on a terminal only what is news."""

    def advance(self, name: str, tokens: int, detail: str) -> None:
        """Tell what is worked on, how many of the tokens are done, and how far that is."""


@contextmanager
def shown_progress() -> Iterator[Shown]:
    """What to tell the progress of a run; a bar is gone when it ends."""
    if not sys.stderr.isatty():
        yield _Lines()
        return
    from rich import progress
    from rich.console import Console

    bar = progress.Progress(
        "{task.description}",
        progress.BarColumn(),
        progress.TextColumn("{task.fields[done]}"),
        progress.TimeRemainingColumn(),
        console=Console(stderr=True, markup=False, highlight=False),
        speed_estimate_period=_AVERAGED,
        transient=True,
    )
    with bar:
        yield _Bar(bar)


class _Bar:
    def __init__(self, bar: Progress) -> None:
        self._bar = bar
        self._task = bar.add_task("loading", total=None, done="")
        self._total = 0

    def begin(self, said: str, tokens: int, *, is_news: bool) -> None:
        self._total = tokens
        self._bar.update(self._task, description="asking", total=tokens)
        if is_news:
            self._bar.console.print(said)

    def advance(self, name: str, tokens: int, detail: str) -> None:
        done = f"{tokens:,} of {self._total:,} tokens"
        self._bar.update(self._task, completed=tokens, description=printable(name, 60), done=done)


class _Lines:
    def __init__(self) -> None:
        self._total = 0
        self._started = self._said = 0.0

    def begin(self, said: str, tokens: int, *, is_news: bool) -> None:
        self._total = tokens
        self._started = self._said = time.monotonic()
        click.echo(said, err=True)

    def advance(self, name: str, tokens: int, detail: str) -> None:
        now = time.monotonic()
        if now - self._said < _BETWEEN_LINES:
            return
        self._said = now
        left = (now - self._started) / max(tokens, 1) * max(self._total - tokens, 0)
        click.echo(
            f"{printable(name, 60)}: {detail}, {tokens:,} of {self._total:,} tokens, about "
            f"{duration(left)} left",
            err=True,
        )
