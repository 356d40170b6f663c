"""Results as JSON or text, of one file and of several; errors and warnings on standard error."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

import click

from ggufext.cli.waiting import Told, waiting
from ggufext.errors import GgufextError, of_system, printable, printable_message, shown
from ggufext.presenting.documents import failure_of
from ggufext.text import json_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from ggufext.cli.waiting import Wait
    from ggufext.errors import ModelWarning


#: What to say of a file that another program had open while it was replaced.
IN_USE = "in use: programs that have it open keep the old file until they open it again"


def show_json(value: object) -> None:
    """Print one JSON document on standard output."""
    click.echo(json_text(value))


def show_error(error: GgufextError, *, as_json: bool) -> None:
    """Say an error in one line on standard error, and as JSON on standard output if asked."""
    click.echo(f"{click.style('error', fg='red', bold=True)}: {error}", err=True)
    if as_json:
        show_json(failure_of(error))


def show_warnings(warnings: Iterable[ModelWarning], path: Path | str) -> None:
    """Say each warning about a file in one line on standard error, the first with its path."""
    label = click.style("warning", fg="yellow", bold=True)
    place = f"{printable(str(path))}: "
    for warning in warnings:
        click.echo(f"{label}: {place}{printable_message(warning.message)}", err=True)
        place = ""


def show_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table on standard output: drawn on a terminal, aligned text elsewhere."""
    if not sys.stdout.isatty():
        cells = [columns, *rows]
        widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
        for row in cells:
            padded = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            click.echo("  ".join(padded).rstrip())
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(*columns)
    for row in rows:
        table.add_row(*row)
    Console(markup=False).print(table)


def show_note(message: str, path: Path | str) -> None:
    """Say what was made of a path, in one line on standard error."""
    click.echo(f"note: {printable(str(path))}: {printable_message(message)}", err=True)


_Done = TypeVar("_Done")


@dataclass(frozen=True, slots=True, kw_only=True)
class FileCommand(Generic[_Done]):
    """What a command does to a file, and how it shows the result.

    Attributes
    ----------
    do : callable
        Takes a path, and what hears how far it is; raises GgufextError or OSError.
    as_json : callable
        Takes path and result, gives what programs read.
    show : callable
        Takes path and result, prints them as text.
    columns : tuple of str
        Names of the columns behind that of the file in the table of several.
    cells : callable
        Takes a result, gives its cells; an error takes their place where there is none.
    """

    do: Callable[[Path | str, Wait], _Done]
    as_json: Callable[[Path | str, _Done], object]
    show: Callable[[Path | str, _Done], None]
    columns: tuple[str, ...]
    cells: Callable[[_Done], tuple[str, ...]]


def handle_files(
    paths: tuple[Path | str, ...],
    work: FileCommand[_Done],
    *,
    as_json: bool,
    as_list: bool = False,
) -> None:
    """Do the work on each file and show what came of it.

    The error of a single file is raised. Among several one that fails does not stop the others:
    a table, or with `as_json` ``{"files": [...]}``, says how each ended, and the exit status is 1
    if any failed. Ctrl-C ends the work, not the report.

    Parameters
    ----------
    paths : tuple of Path or str
        Files, and names that lead to models. A file that is named twice, as every part of a split
        model names the first, counts once.
    as_list : bool
        Report one file as several are.
    """
    paths = tuple(dict.fromkeys(paths))
    if len(paths) == 1 and not as_list:
        (path,) = paths
        try:
            with waiting(shown(str(path))) as wait:
                done = work.do(path, wait)
        except GgufextError as error:
            _named(error, path)
            raise
        except OSError as error:
            raise _named(error, path) from error
        if as_json:
            show_json(work.as_json(path, done))
        else:
            work.show(path, done)
        return
    outcomes: dict[Path | str, _Done | GgufextError] = {}
    with waiting("files") as wait:
        for path, outcome in _outcomes(paths, work, wait):
            outcomes[path] = outcome
            if not as_json and not isinstance(outcome, GgufextError):
                with wait.silent():
                    work.show(path, outcome)
    _show_all(outcomes, work, as_json=as_json)
    failures = [outcome for outcome in outcomes.values() if isinstance(outcome, GgufextError)]
    for failure in failures:
        show_error(failure, as_json=False)
    if any(failure.code == _NOT_DONE for failure in failures):
        raise click.Abort
    if failures:
        sys.exit(1)


#: Code of the files that Ctrl-C kept from being handled.
_NOT_DONE = "not_done"


def _outcomes(
    paths: tuple[Path | str, ...], work: FileCommand[_Done], wait: Wait
) -> Iterator[tuple[Path | str, _Done | GgufextError]]:
    interrupted = False
    for number, path in enumerate(paths):
        wait.tell(Told("files", number, len(paths), detail=shown(str(path))))
        try:
            if interrupted:
                raise KeyboardInterrupt
            yield path, work.do(path, wait)
        except (GgufextError, OSError) as error:
            yield path, _named(error, path)
        except KeyboardInterrupt:
            interrupted = True
            yield path, GgufextError(code=_NOT_DONE, path=path, message="interrupted: not done")


def _named(error: GgufextError | OSError, path: Path | str) -> GgufextError:
    """The error with the file it belongs to."""
    if isinstance(error, GgufextError):
        error.path = error.path or (shown(path) if isinstance(path, str) else path)
        return error
    return of_system(error, path)


def _show_all(
    outcomes: dict[Path | str, _Done | GgufextError], work: FileCommand[_Done], *, as_json: bool
) -> None:
    if as_json:
        show_json(
            {
                "files": [
                    failure_of(outcome, path)
                    if isinstance(outcome, GgufextError)
                    else work.as_json(path, outcome)
                    for path, outcome in outcomes.items()
                ]
            }
        )
        return
    rows = [
        (printable(shown(str(path))), *_cells(outcome, work)) for path, outcome in outcomes.items()
    ]
    show_table(("file", *work.columns), rows)


def _cells(outcome: _Done | GgufextError, work: FileCommand[_Done]) -> tuple[str, ...]:
    if isinstance(outcome, GgufextError):
        return (f"failed: {outcome.code}", *[""] * (len(work.columns) - 1))
    return work.cells(outcome)
