"""The report in a terminal: sentences, and a table of the layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ggufext.attention.report.sentences import (
    DESCRIPTION,
    NOT_FITTED,
    gamma_text,
    group_lines,
    group_text,
    notes,
    number,
    r_squared_text,
    run_line,
    title,
    unseen_text,
)
from ggufext.errors import printable
from ggufext.text import percent

if TYPE_CHECKING:
    from typing import TextIO

    from ggufext.attention.results import LayerAttention, LayerGroup, MeasureResult

#: Width of what is written into a file or a pipe.
_PIPE_WIDTH = 110


def print_report(result: MeasureResult, *, file: TextIO | None = None) -> None:
    """Print what was measured; colours only on a terminal.

    Parameters
    ----------
    result : MeasureResult
    file : text file, optional
        Standard output without.
    """
    # Names come from model files: no markup, emoji codes or highlighting in them.
    console = Console(file=file, markup=False, emoji=False, highlight=False)
    if not console.is_terminal:
        console = Console(
            file=file, markup=False, emoji=False, highlight=False, width=_PIPE_WIDTH, no_color=True
        )

    def say(text: str, style: str = "") -> None:
        # A sentence stays one line, whatever the width: the terminal wraps it, a pipe keeps it.
        console.print(Text(text, style=style), soft_wrap=True)

    say(title(result), "bold")
    say(f"  {run_line(result)}")
    for condition in result.conditions:
        for group in condition.groups:
            console.print()
            say(f"{printable(condition.name, 60)}, {group_text(group)}", "bold")
            for line in group_lines(group):
                say(f"  {line}")
            console.print(_layers(group))
        if missing := unseen_text(condition):
            say(f"  {missing}")
    console.print()
    say(f"  {DESCRIPTION}")
    for note in notes(result):
        say(f"  note: {note}", "yellow")


def _layers(group: LayerGroup) -> Table:
    table = Table(box=None, padding=(0, 0, 0, 2))
    heads = ("layer", "γ observed", "R²", "single heads", "first tokens")
    for head in heads:
        table.add_column(Text(head, style="dim"), justify="right", no_wrap=True)
    for layer in group.layers:
        table.add_row(*(Text(cell) for cell in _cells(layer)))
    return table


def _cells(layer: LayerAttention) -> tuple[str, ...]:
    decay = layer.curve.decay
    gammas = [head.decay.gamma for head in layer.heads if head.decay]
    return (
        f"{layer.layer}",
        gamma_text(decay),
        r_squared_text(decay),
        f"{number(min(gammas))} to {number(max(gammas))}" if gammas else NOT_FITTED,
        percent(layer.curve.sink),
    )
