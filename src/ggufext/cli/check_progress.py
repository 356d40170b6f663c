"""What ``ggufext check`` says while it asks: how long it will take, and how far it is."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from ggufext.errors import printable
from ggufext.text import duration

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ggufext.api.audits import Progress, RunNotes

#: Seconds between two lines where nobody watches a bar.
_BETWEEN_LINES = 10.0

#: Seconds from which on something shorter is offered.
_LONG = 600.0

#: Seconds over which a bar's speed is averaged: a question of a long text may take minutes.
_AVERAGED = 1800.0


@contextmanager
def show_progress() -> Iterator[Callable[[Progress | RunNotes], None]]:
    """Tell on standard error: a bar on a terminal, lines elsewhere."""
    if not sys.stderr.isatty():
        yield _Lines()
        return
    from rich import progress
    from rich.console import Console

    from ggufext.api.audits import RunNotes

    bar = progress.Progress(
        "{task.description}",
        progress.BarColumn(),
        progress.TextColumn("{task.fields[done]}"),
        progress.TimeRemainingColumn(),
        console=Console(stderr=True, markup=False, highlight=False),
        speed_estimate_period=_AVERAGED,
        transient=True,
    )
    task = bar.add_task("loading", total=None, done="")
    total = 0

    def report(event: Progress | RunNotes) -> None:
        nonlocal total
        if isinstance(event, RunNotes):
            total = event.tokens
            bar.update(task, description="asking", total=total)
            if event.estimate is not None:
                bar.console.print(beginning(event))
        else:
            name = printable(event.trial.condition, 60)
            done = f"{event.tokens:,} of {total:,} tokens"
            bar.update(task, completed=event.tokens, description=name, done=done)

    with bar:
        yield report


class _Lines:
    """A line at the beginning, and now and then one on how far the run is."""

    def __init__(self) -> None:
        self._questions = self._tokens = 0
        self._started = self._said = 0.0

    def __call__(self, event: Progress | RunNotes) -> None:
        from ggufext.api.audits import RunNotes

        now = time.monotonic()
        if isinstance(event, RunNotes):
            self._questions, self._tokens = event.questions, event.tokens
            self._started = self._said = now
            click.echo(beginning(event), err=True)
        elif now - self._said >= _BETWEEN_LINES:
            self._said = now
            left = (now - self._started) / event.tokens * (self._tokens - event.tokens)
            click.echo(
                f"{printable(event.trial.condition, 60)}: {event.questions:,} of "
                f"{self._questions:,} questions, {event.tokens:,} of "
                f"{self._tokens:,} tokens, about {duration(left)} left",
                err=True,
            )


def beginning(notes: RunNotes) -> str:
    """What is asked, how long it takes, and what would take less."""
    asked = f"asking {notes.questions - notes.finished:,} questions"
    if notes.finished:
        asked += f" ({notes.finished:,} are answered)"
    said = f"{asked}, {notes.tokens:,} tokens"
    found = notes.estimate
    if found is None:
        return said
    said += f": about {duration(found.seconds)}, measured on the first tokens of this model"
    if found.sweep_seconds is not None:
        said += f"; --mode sweep would take about {duration(found.sweep_seconds)}"
    if found.seconds > _LONG and found.shorter_seconds is not None:
        said += f", without the longest of --lengths about {duration(found.shorter_seconds)}"
    return said
