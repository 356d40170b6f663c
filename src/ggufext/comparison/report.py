"""A comparison in a terminal: losses by position, keys and short cost, and what they come to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from ggufext.audit.report.sentences import (
    accuracy_text,
    memory_lines,
    model_name,
    short_name,
    tokens_text,
)
from ggufext.audit.report.terminal import report_console
from ggufext.comparison.recommendation import turned
from ggufext.comparison.request import NATIVE
from ggufext.errors import printable
from ggufext.text import percent

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import TextIO

    from ggufext.comparison.results import ComparedCondition, CompareResult, Estimate, LossBin

_DASH = "–"


def print_comparison(result: CompareResult, *, file: TextIO | None = None) -> None:
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
    measured = [each for each in result.conditions if each.texts]
    if measured:
        console.print(_losses(measured))
        console.print(_keys(measured))
        console.print(_differences(result, measured))
        console.print()
    say(Text.assemble(("  recommended: ", "bold"), recommendation_text(result)))
    say(Text(f"  {tokens_text(result.run)}"))
    for warning in result.warnings:
        say(Text(f"  note: {printable(warning.message)}", style="yellow"))


def run_line(result: CompareResult) -> str:
    """Engine, target, texts and seed."""
    texts = ", ".join(dict.fromkeys(printable(each, 60) for each in result.texts))
    count = f"{len(result.texts)} text{'s' if len(result.texts) > 1 else ''}"
    trained = f", trained on {result.run.train_length:,}" if result.run.train_length else ""
    return (
        f"{printable(result.run.engine, 80)}, to {result.request.target_length:,} tokens{trained}, "
        f"{count} ({texts}), seed {result.request.seed}"
    )


def recommendation_text(result: CompareResult) -> str:
    """The recommended condition and its reason."""
    found = result.recommendation
    return f"{short_name(found.condition or 'nothing to write')}: {printable(found.reason)}"


def estimate_text(found: Estimate | None, digits: int = 3) -> str:
    """A difference with its interval: ``+0.055 (+0.032 to +0.078)``."""
    if found is None:
        return _DASH
    if found.interval is None:
        return f"{found.mean:+.{digits}f}"
    low, high = found.interval
    return f"{found.mean:+.{digits}f} ({low:+.{digits}f} to {high:+.{digits}f})"


def _table(title: str, columns: Sequence[str], rows: Mapping[str, Sequence[str]]) -> Table:
    table = Table(title=Text(title, style="bold"), title_justify="left", box=None)
    table.add_column(Text("condition"))
    for column in columns:
        table.add_column(Text(column), justify="right")
    for name, cells in rows.items():
        table.add_row(Text(short_name(name)), *map(Text, cells))
    return table


def _losses(conditions: Sequence[ComparedCondition]) -> Table:
    bins = list(dict.fromkeys((each.start, each.end) for x in conditions for each in x.losses))
    rows = {}
    for condition in conditions:
        known = {(each.start, each.end): each for each in condition.losses}
        rows[condition.name] = [_loss_text(known.get(span)) for span in bins]
    return _table(
        "Loss in nats a token by position, and its difference from native",
        [f"{start:,}–{end - 1:,}" for start, end in bins],
        rows,
    )


def _loss_text(found: LossBin | None) -> str:
    if found is None:
        return _DASH
    against = f" {found.against_native.mean:+.3f}" if found.against_native else ""
    return f"{found.loss.mean:.3f}{against}"


def _keys(conditions: Sequence[ComparedCondition]) -> Table:
    lengths = list(dict.fromkeys(each.length for x in conditions for each in x.keys))
    rows = {}
    for condition in conditions:
        keys = {each.length: accuracy_text(each.accuracy, each.interval) for each in condition.keys}
        rows[condition.name] = [keys.get(length, _DASH) for length in lengths]
    columns = [f"{length:,}" for length in lengths]
    return _table("Keys found by length, of several in a text", columns, rows)


def _differences(result: CompareResult, conditions: Sequence[ComparedCondition]) -> Table:
    beyond = {each.b: each.difference for each in result.losses if each.a == NATIVE}
    rows = {}
    for condition in conditions:
        cost = condition.short_cost
        if cost is not None:
            rows[condition.name] = [
                estimate_text(turned(beyond.get(condition.name))),
                estimate_text(cost.loss),
                f"{cost.divergence.mean:.3f}",
                percent(cost.same_top.mean),
            ]
    return _table(
        "Against native: loss beyond the training length, and the cost within it",
        ("beyond", "within", "divergence", "same top"),
        rows,
    )
