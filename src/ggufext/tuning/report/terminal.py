"""A search in a terminal: what was tried, what was decided on held-out texts, and the result."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from ggufext.audit.report.sentences import short_name
from ggufext.audit.report.terminal import report_console
from ggufext.comparison.report import terminal as comparison
from ggufext.errors import printable_message
from ggufext.tuning.report.sentences import (
    HELD_OUT_TITLE,
    SEARCHED_TITLE,
    more_text,
    result_text,
    searched,
)

if TYPE_CHECKING:
    from typing import TextIO

    from ggufext.tuning.results import TuneResult


def print_report(result: TuneResult, *, file: TextIO | None = None) -> None:
    """Print what was tried, the decision and the result; colours only on a terminal.

    Parameters
    ----------
    result : TuneResult
    file : text file, optional
        Standard output without.
    """
    console = report_console(file)
    console.print(_searched(result))
    console.print()
    if result.decision is not None:
        console.print(Text(HELD_OUT_TITLE, style="bold"))
        comparison.print_report(result.decision, file=file)
        console.print()

    def say(line: Text) -> None:
        console.print(line, soft_wrap=True)

    say(Text.assemble(("  result: ", "bold"), result_text(result)))
    shown = set(result.decision.warnings) if result.decision is not None else set()
    for warning in result.warnings:
        if warning not in shown:
            say(Text(f"  note: {printable_message(warning.message)}", style="yellow"))


def _searched(result: TuneResult) -> Table:
    found = searched(result)
    title = Text(SEARCHED_TITLE, style="bold")
    table = Table(title=title, title_justify="left", box=None)
    table.add_column(Text("scaling"))
    for column in found.columns:
        table.add_column(Text(column), justify="right")
    for name, cells in found.rows.items():
        table.add_row(Text(short_name(name)), *map(Text, cells))
    if more := more_text(result):
        table.add_row(Text(more))
    return table
