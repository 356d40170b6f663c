"""The report in a terminal: a heatmap per condition and the sentences beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.columns import Columns
from rich.console import Console
from rich.style import Style
from rich.table import Table
from rich.text import Text

from ggufext.audit.report.picture import accuracy_colour, hexadecimal, text_colour
from ggufext.audit.report.sentences import (
    comparison_text,
    effective_text,
    interval_text,
    left_out,
    lost_text,
    measured,
    memory_lines,
    model_name,
    notes,
    run_line,
    short_name,
    tokens_text,
)
from ggufext.text import percent

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TextIO

    from ggufext.audit.findings.results import CheckResult, Condition

#: Width of what is written into a file or a pipe.
_PIPE_WIDTH = 110

#: A cell that was not measured; the legend below the heatmaps explains it.
_DASH = "–"


def report_console(file: TextIO | None) -> Console:
    """What reports are printed on: coloured on a terminal, of one width elsewhere."""
    # Names come from model files: no markup, emoji codes or highlighting in them.
    console = Console(file=file, markup=False, emoji=False, highlight=False, soft_wrap=False)
    if console.is_terminal:
        return console
    return Console(
        file=file, markup=False, emoji=False, highlight=False, width=_PIPE_WIDTH, no_color=True
    )


def print_report(result: CheckResult, *, file: TextIO | None = None) -> None:
    """Print heatmaps and conclusions; colours only on a terminal.

    Parameters
    ----------
    result : CheckResult
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
        console.print(Columns([_heatmap(c) for c in shown.conditions], padding=(0, 3)))
        say(Text("  " + _legend(shown), style="dim"))
        console.print()
    for conclusion in _conclusions(shown):
        say(conclusion)
    if missing := left_out(result):
        say(Text(f"  {missing}"))
    say(Text(f"  {tokens_text(result.run)}"))
    for note in notes(result):
        say(Text(f"  note: {note}", style="yellow"))


def _heatmap(condition: Condition) -> Table:
    lengths = sorted({cell.length for cell in condition.cells})
    table = Table(
        title=Text(short_name(condition.name), style="bold"), title_justify="left", box=None
    )
    table.add_column(Text("depth"), justify="right")
    for length in lengths:
        table.add_column(Text(f"{length:,}"), justify="center", min_width=6, no_wrap=True)
    cells = {(cell.length, cell.depth): cell for cell in condition.cells}
    for depth in sorted({cell.depth for cell in condition.cells}):
        found = [cells.get((length, depth)) for length in lengths]
        shares = [None if c is None or c.hits is None else c.hits / c.trials for c in found]
        table.add_row(Text(percent(depth)), *(_square(share) for share in shares))
    table.add_row(Text("all"), *(_square(x.accuracy) for x in condition.lengths))
    table.add_row(
        Text("95 %", style="dim"),
        *(
            Text(interval_text(x.interval).removesuffix(" %") if x.interval else _DASH, style="dim")
            for x in condition.lengths
        ),
    )
    return table


def _square(share: float | None) -> Text:
    if share is None:
        return Text(f"  {_DASH}   ", style="dim")
    colour = accuracy_colour(share)
    style = Style(color=hexadecimal(text_colour(colour)), bgcolor=hexadecimal(colour))
    return Text(f"{percent(share):^6}", style=style)


def _legend(result: CheckResult) -> str:
    trials = sorted({c.trials for x in result.conditions for c in x.cells if c.hits is not None})
    each = f"{trials[0]} to {trials[-1]}" if len(trials) > 1 else f"{trials[0]}" if trials else "no"
    legend = (
        f"keys found, by length in tokens and depth of the key in the text; {each} answers a cell; "
        "last row: 95 % interval"
    )
    missing = any(c.hits is None for x in result.conditions for c in x.cells)
    return legend + (f"; {_DASH} not measured" if missing else "")


def _conclusions(result: CheckResult) -> Iterator[Text]:
    for condition in result.conditions:
        name = f"  {short_name(condition.name)}: "
        yield Text.assemble((name, "bold"), effective_text(condition, result.request.threshold))
        if condition.lost_in_the_middle is not None:
            yield Text(f"    {lost_text(condition.lost_in_the_middle)}")
    for found in result.comparisons:
        yield Text(f"  {comparison_text(found)}")
