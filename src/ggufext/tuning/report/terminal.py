"""A search in a terminal: what was tried, what was decided on held-out texts, and the result."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from ggufext.audit.report.sentences import short_name
from ggufext.audit.report.terminal import report_console
from ggufext.comparison.report import terminal as comparison
from ggufext.errors import printable

if TYPE_CHECKING:
    from typing import TextIO

    from ggufext.tuning.results import TuneResult

#: Scalings that were only screened: so many are shown.
_SCREENED_SHOWN = 5


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
        console.print(Text("On held-out texts", style="bold"))
        comparison.print_report(result.decision, file=file)
        console.print()

    def say(line: Text) -> None:
        console.print(line, soft_wrap=True)

    say(Text.assemble(("  result: ", "bold"), result_text(result)))
    shown = set(result.decision.warnings) if result.decision is not None else set()
    for warning in result.warnings:
        if warning not in shown:
            say(Text(f"  note: {printable(warning.message)}", style="yellow"))


def result_text(result: TuneResult) -> str:
    """What is to be written, and why, in one sentence."""
    if result.kept and result.tuned is not None:
        return f"{short_name(result.tuned)} is kept: {printable(result.reason)}"
    return f"no closed form is beaten: {printable(result.reason)}"


def _searched(result: TuneResult) -> Table:
    title = Text("Scalings by loss beyond the training length on the search texts", style="bold")
    table = Table(title=title, title_justify="left", box=None)
    table.add_column(Text("scaling"))
    for column in ("texts", "loss in nats a token", "output error of the screen"):
        table.add_column(Text(column), justify="right")
    measured = [each for each in result.searched if each.texts]
    screened = [each for each in result.searched if not each.texts]
    for each in (*measured, *screened[:_SCREENED_SHOWN]):
        loss = "–" if each.loss is None else f"{each.loss:.3f}"
        cells = (str(each.texts), loss, f"{each.output_error:.3f}")
        table.add_row(Text(short_name(each.name)), *map(Text, cells))
    if more := len(screened) - _SCREENED_SHOWN:
        table.add_row(Text(f"and {more} more, only screened") if more > 0 else Text(""))
    return table
