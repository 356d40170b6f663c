"""Several files in one command: each is handled, and the outcome of all shown at the end."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

import click

from ggufext.cli.output import error_as_json, show_error, show_json, show_table
from ggufext.errors import GgufextError, of_system, printable
from ggufext.locating.names import shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

Done = TypeVar("Done")


@dataclass(frozen=True, slots=True, kw_only=True)
class Work(Generic[Done]):
    """What a command does to a file, and how it shows the result.

    Attributes
    ----------
    do : callable
        Takes a path; raises GgufextError or OSError.
    as_json : callable
        Takes path and result, gives what programs read.
    show : callable
        Takes path and result, prints them as text.
    columns : tuple of str
        Names of the columns behind that of the file in the table of several.
    cells : callable
        Takes a result, gives its cells; an error takes their place where there is none.
    """

    do: Callable[[Path | str], Done]
    as_json: Callable[[Path | str, Done], object]
    show: Callable[[Path | str, Done], None]
    columns: tuple[str, ...]
    cells: Callable[[Done], tuple[str, ...]]


def handle_files(paths: tuple[Path | str, ...], work: Work[Done], *, as_json: bool) -> None:
    """Do the work on each file and show what came of it.

    The error of a single file is raised. Among several one that fails does not stop the others:
    a table, or with `as_json` ``{"files": [...]}``, says how each ended, and the exit status is 1
    if any failed. Ctrl-C ends the work, not the report.

    Parameters
    ----------
    paths : tuple of Path or str
        Files, and names that lead to models. A file that is named twice, as every part of a split
        model names the first, counts once.
    """
    paths = tuple(dict.fromkeys(paths))
    if len(paths) == 1:
        (path,) = paths
        try:
            done = work.do(path)
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
    outcomes: dict[Path | str, Done | GgufextError] = {}
    for path, outcome in _outcomes(paths, work):
        outcomes[path] = outcome
        if not as_json and not isinstance(outcome, GgufextError):
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
    paths: tuple[Path | str, ...], work: Work[Done]
) -> Iterator[tuple[Path | str, Done | GgufextError]]:
    interrupted = False
    for path in paths:
        try:
            if interrupted:
                raise KeyboardInterrupt
            yield path, work.do(path)
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
    outcomes: dict[Path | str, Done | GgufextError], work: Work[Done], *, as_json: bool
) -> None:
    if as_json:
        show_json(
            {
                "files": [
                    {"path": shown(str(path)), **error_as_json(outcome)}
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


def _cells(outcome: Done | GgufextError, work: Work[Done]) -> tuple[str, ...]:
    if isinstance(outcome, GgufextError):
        return (f"failed: {outcome.code}", *[""] * (len(work.columns) - 1))
    return work.cells(outcome)
