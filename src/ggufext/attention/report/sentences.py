"""What the reports say: the same sentences in the terminal, on the page and in the PNG."""

from __future__ import annotations

from pathlib import PurePath
from typing import TYPE_CHECKING

from ggufext.errors import printable, printable_message
from ggufext.text import counted, percent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ggufext.attention.results import (
        AttentionCurve,
        ConditionAttention,
        Decay,
        LayerGroup,
        MeasureResult,
    )

#: Why nothing passes or fails here.
DESCRIPTION = (
    "This describes the model; it passes or fails nothing. γ observed depends on the range of "
    "distances that it is fitted to, differs from head to head, and did not rank extension methods "
    "where it was compared with what models lose beyond their training. To choose a method, "
    "measure what each does for the model: ggufext compare."
)

CURVES_TITLE = "Mean attention to one token by its distance"

NOT_FITTED = "–"


def title(result: MeasureResult) -> str:
    """What was measured."""
    return f"Attention of {printable(PurePath(result.run.path).name, 120)}"


def run_line(result: MeasureResult) -> str:
    """Text, queries and training length."""
    request, run = result.request, result.run
    text = (
        f"filler sentences, seed {request.seed}"
        if request.text is None
        else printable(str(request.text), 80)
    )
    return (
        f"{request.length:,} tokens of {text}; {len(run.rows)} queries from position "
        f"{run.rows[0]:,} on; trained on {run.train_length:,} tokens"
    )


def group_text(group: LayerGroup) -> str:
    """Which layers a group holds."""
    said = counted(len(group.layers), "local layer" if group.window else "global layer")
    if group.window:
        said += f" (window of {group.window:,})"
    return said if group.rotates else f"{said} without rotation"


def group_lines(group: LayerGroup) -> Iterator[str]:
    """What was found in a group of layers, a sentence each."""
    curve = group.curve
    yield f"γ observed {decay_text(curve.decay)}; {predicted_text(group)}"
    if curve.near is not None and curve.far is not None:
        yield (
            f"by range: {distances_text(curve.near)} γ {number(curve.near.gamma)}, "
            f"{distances_text(curve.far)} γ {number(curve.far.gamma)}"
        )
    gammas = sorted(x.decay.gamma for layer in group.layers for x in layer.heads if x.decay)
    if len(gammas) > 1:
        middle = gammas[len(gammas) // 2]
        yield (
            f"single heads: γ {number(gammas[0])} to {number(gammas[-1])}, middle one "
            f"{number(middle)}, {len(gammas)} heads"
        )
    yield shares_text(curve)


def shares_text(curve: AttentionCurve) -> str:
    """Where attention goes that is not in the ranges."""
    return (
        f"of all attention {percent(curve.sink)} goes to the first tokens of the text, "
        f"{percent(curve.itself)} to the query itself, {percent(curve.beyond)} beyond the ranges"
    )


def predicted_text(group: LayerGroup) -> str:
    """What the formula says."""
    if group.gamma_pade is None:
        return "γ is not defined by a formula for these layers"
    return f"γ by formula {number(group.gamma_pade)} (γ_Padé at this length)"


def decay_text(decay: Decay | None) -> str:
    """``0.78 (95 % 0.77 to 0.79) over 1–512 tokens, R² 0.961``."""
    if decay is None:
        return "not fitted: too few distances get any attention"
    return f"{gamma_text(decay)} over {distances_text(decay)} tokens, R² {r_squared_text(decay)}"


def gamma_text(decay: Decay | None) -> str:
    """``0.78 (95 % 0.77 to 0.79)``."""
    if decay is None:
        return NOT_FITTED
    if decay.interval is None:
        return number(decay.gamma)
    low, high = decay.interval
    return f"{number(decay.gamma)} (95 % {number(low)} to {number(high)})"


def r_squared_text(decay: Decay | None) -> str:
    """Three decimals, since a law that fits badly has 0.9 as well."""
    return NOT_FITTED if decay is None else f"{decay.r_squared:.3f}"


def distances_text(decay: Decay) -> str:
    """Distances that a law was fitted to, both in it."""
    return f"{decay.first:,}–{decay.last:,}"


def number(value: float) -> str:
    """Two decimals, with a real minus sign."""
    text = f"{value:.2f}".replace("-", "−")
    return "0.00" if text == "−0.00" else text


def unseen_text(condition: ConditionAttention) -> str | None:
    """Layers whose attention could not be read; None where there are none."""
    if not condition.unseen:
        return None
    return f"without attention to read: {len(condition.unseen)} layers"


def range_text(edges: tuple[int, ...], index: int) -> str:
    """Distances of a range, both in it."""
    first, last = edges[index], edges[index + 1] - 1
    return f"{first:,}" if first == last else f"{first:,}–{last:,}"


def notes(result: MeasureResult) -> Iterator[str]:
    """What the run had to say."""
    return (printable_message(warning.message) for warning in result.warnings)
