"""The report as one PNG, drawn by matplotlib (extra ``[report]``)."""

from __future__ import annotations

import math
import textwrap
import warnings
from io import BytesIO
from typing import TYPE_CHECKING

from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import NullLocator

from ggufext.audit.report.colours import (
    NOT_MEASURED,
    accuracy_colour,
    hexadecimal,
    text_colour,
)
from ggufext.audit.report.measured import left_out, measured
from ggufext.audit.report.sentences import effective_text, model_name, notes, percent, run_line
from ggufext.errors import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ggufext.audit.findings.results import CheckResult, Condition

#: Heatmaps in one row of the picture.
_COLUMNS = 3

#: Characters of a sentence below that fit under each.
_CHARACTERS = 56

_MARKERS = "os^DvP"
_DASHES = ("-", "--", ":", "-.", (0, (1, 3)), (0, (8, 3)))
_SERIES = ("#0b5fa5", "#b34700", "#00735c", "#8a3d8f", "#5c5c00", "#50565c")


def png(result: CheckResult) -> bytes:
    """The heatmap of every condition and accuracy by length, with intervals."""
    drawn = BytesIO()
    # Names come from model files: a dollar sign is no formula, and a letter that the font lacks
    # is drawn as a box without a warning.
    with (
        rc_context({"text.parse_math": False, "font.size": 10, "axes.titlesize": 11}),
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        figure = _figure(measured(result), left_out(result))
        FigureCanvasAgg(figure)
        figure.savefig(drawn, format="png")
    return drawn.getvalue()


def _figure(result: CheckResult, missing: str | None) -> Figure:
    columns = min(_COLUMNS, max(len(result.conditions), 2))
    rows = math.ceil(len(result.conditions) / columns)
    depths = max((len({x.depth for x in c.cells}) for c in result.conditions), default=1)
    heights = [1.3 + 0.36 * depths] * rows + [3.2]
    said = _said(result, missing, width=_CHARACTERS * columns)
    height = sum(heights) + 0.6 + 0.17 * len(said)
    figure = Figure(figsize=(4.6 * columns, height), dpi=130, layout="constrained")
    figure.suptitle(
        f"Passkey audit of {model_name(result)}\n{run_line(result)}", fontsize=12, x=0.01, ha="left"
    )
    grid = figure.add_gridspec(rows + 1, columns, height_ratios=heights)
    for i, condition in enumerate(result.conditions):
        _draw_heatmap(
            figure.add_subplot(grid[i // columns, i % columns]), condition, result.run.train_length
        )
    below = figure.add_subplot(grid[rows, :])
    _draw_lengths(below, result)
    below.set_xlabel("length in tokens\n\n" + "\n".join(said), loc="left")
    return figure


def _said(result: CheckResult, missing: str | None, *, width: int) -> list[str]:
    """What the report says in words, in lines of so many characters."""
    sentences = [
        *(
            f"{printable(c.name, 60)}: {effective_text(c, result.request.threshold)}"
            for c in result.conditions
        ),
        *([missing] if missing else []),
        *(f"note: {note}" for note in notes(result)),
    ]
    return [line for sentence in sentences for line in textwrap.wrap(sentence, width)]


def _draw_heatmap(axes: Axes, condition: Condition, train_length: int | None) -> None:
    lengths = sorted({cell.length for cell in condition.cells})
    depths = sorted({cell.depth for cell in condition.cells})
    for cell in condition.cells:
        x, y = lengths.index(cell.length), depths.index(cell.depth)
        share = None if cell.hits is None else cell.hits / cell.trials
        colour = NOT_MEASURED if share is None else accuracy_colour(share)
        axes.add_patch(
            Rectangle(
                (x - 0.48, y - 0.46),
                0.96,
                0.92,
                facecolor="white" if share is None else hexadecimal(colour),
                edgecolor=hexadecimal(NOT_MEASURED),
                hatch="////" if share is None else None,
                linewidth=0,
            )
        )
        axes.text(
            x,
            y,
            "n/m" if share is None else percent(share),
            ha="center",
            va="center",
            color=hexadecimal(text_colour(colour)),
        )
    beyond = [i for i, length in enumerate(lengths) if train_length and length > train_length]
    if beyond and beyond[0] > 0:
        axes.axvline(beyond[0] - 0.5, color="black", linestyle="--", linewidth=1.5)
    axes.set_xlim(-0.5, len(lengths) - 0.5)
    axes.set_ylim(len(depths) - 0.5, -0.5)
    axes.set_xticks(range(len(lengths)), [f"{length:,}" for length in lengths])
    axes.set_yticks(range(len(depths)), [percent(depth) for depth in depths])
    axes.set_xlabel("length in tokens")
    axes.set_ylabel("depth of the key")
    axes.set_title(printable(condition.name, 60), loc="left")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def _draw_lengths(axes: Axes, result: CheckResult) -> None:
    for number, condition in enumerate(result.conditions):
        known = [x for x in condition.lengths if x.accuracy is not None and x.interval is not None]
        shares = [x.accuracy or 0.0 for x in known]
        low = [s - (x.interval or (0, 1))[0] for s, x in zip(shares, known, strict=True)]
        high = [(x.interval or (0, 1))[1] - s for s, x in zip(shares, known, strict=True)]
        axes.errorbar(
            # a little apart, so that intervals of several conditions do not cover each other
            [x.length * 1.02 ** (number - (len(result.conditions) - 1) / 2) for x in known],
            shares,
            yerr=[low, high],
            # a name that begins with an underscore would be left out of the legend
            label=f" {printable(condition.name, 60)}",
            color=_SERIES[number % len(_SERIES)],
            marker=_MARKERS[number % len(_MARKERS)],
            linestyle=_DASHES[number % len(_DASHES)],
            markerfacecolor="white",
            capsize=3,
        )
    axes.axhline(result.request.threshold, color="black", linestyle="--", linewidth=1)
    lengths = sorted({x.length for c in result.conditions for x in c.lengths})
    axes.set_xscale("log", base=2)
    axes.set_xticks(lengths, [f"{length:,}" for length in lengths])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_ylim(-0.03, 1.03)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0 %", "25 %", "50 %", "75 %", "100 %"])
    axes.set_title(
        f"Keys found by length (dashed: {percent(result.request.threshold)})", loc="left"
    )
    axes.grid(visible=True, axis="y", color="#dddddd")
    if result.conditions:
        axes.legend(loc="lower left")
