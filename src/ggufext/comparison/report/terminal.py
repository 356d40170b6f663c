"""A comparison in a terminal: losses by position, keys and short cost, and what they come to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from ggufext.audit.report.sentences import (
    NOT_MEASURED,
    memory_lines,
    model_name,
    short_name,
    tokens_text,
)
from ggufext.audit.report.terminal import report_console
from ggufext.comparison.report.sentences import (
    COST_TITLE,
    KEYS_TITLE,
    bins,
    difference_text,
    keys_found,
    loss_beyond,
    measured,
    positions_text,
    recommendation_text,
    run_line,
)
from ggufext.errors import printable_message
from ggufext.text import percent

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import TextIO

    from ggufext.comparison.results import CompareResult, LossBin


def print_report(result: CompareResult, *, file: TextIO | None = None) -> None:
    """Print tables and the recommendation; colours only on a terminal.

    Parameters
    ----------
    result : CompareResult
    file : text file, optional
        Standard output without.
    """
    console = report_console(file)

    def say(line: Text) -> None:
        # A sentence stays one line, whatever the width: the terminal wraps it, a pipe keeps it.
        console.print(line, soft_wrap=True)

    say(Text(model_name(result.run), style="bold"))
    say(Text(f"  {run_line(result)}"))
    for line in memory_lines(result.run):
        say(Text(f"  {line}"))
    console.print()
    shown = measured(result)
    if shown.conditions:
        console.print(_losses(shown))
        console.print(_table(KEYS_TITLE, *keys_found(shown)))
        console.print(_cost(shown))
        console.print()
    say(Text.assemble(("  recommended: ", "bold"), recommendation_text(result)))
    say(Text(f"  {tokens_text(result.run)}"))
    for warning in result.warnings:
        say(Text(f"  note: {printable_message(warning.message)}", style="yellow"))


def _table(title: str, columns: Sequence[str], rows: Mapping[str, Sequence[str]]) -> Table:
    table = Table(title=Text(title, style="bold"), title_justify="left", box=None)
    table.add_column(Text("condition"))
    for column in columns:
        table.add_column(Text(column), justify="right")
    for name, cells in rows.items():
        table.add_row(Text(short_name(name)), *map(Text, cells))
    return table


def _losses(result: CompareResult) -> Table:
    spans = bins(result)
    rows = {}
    for condition in result.conditions:
        known = {(each.start, each.end): each for each in condition.losses}
        rows[condition.name] = [_loss_text(known.get(span)) for span in spans]
    return _table(
        "Loss in nats a token by position, and its difference from native",
        [positions_text(span) for span in spans],
        rows,
    )


def _loss_text(found: LossBin | None) -> str:
    if found is None:
        return NOT_MEASURED
    against = f" {found.against_native.mean:+.3f}" if found.against_native else ""
    return f"{found.loss.mean:.3f}{against}"


def _cost(result: CompareResult) -> Table:
    beyond = loss_beyond(result)
    rows = {
        each.name: [
            difference_text(beyond.get(each.name)),
            difference_text(each.short_cost.loss),
            f"{each.short_cost.divergence.mean:.3f}",
            percent(each.short_cost.same_top.mean),
        ]
        for each in result.conditions
        if each.short_cost is not None
    }
    return _table(COST_TITLE, ("beyond", "within", "divergence", "same top"), rows)
