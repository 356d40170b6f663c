"""Layers that an extension is not meant for: they keep their rotation, or it is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ggufext.errors import ModelWarning, PlanError
from ggufext.header.architectures import Layout
from ggufext.planning.methods import Method

if TYPE_CHECKING:
    from ggufext.header.layers import LayerFacts
    from ggufext.header.model import ModelFacts

_CHANGES_BASE = {Method.GAMMA, Method.NTK}


def moves_nothing(facts: ModelFacts) -> bool:
    """Whether no layer rotates that sees the whole context: then an extension rotates none."""
    return not any(layer.moves for layer in facts.layers)


def local_freq_base(facts: ModelFacts, method: Method, *, force: bool) -> float | None:
    """Value of rope.freq_base_swa that keeps the local layers as they were trained.

    Parameters
    ----------
    facts : ModelFacts
    method : Method
    force : bool
        Accept that local layers change.

    Returns
    -------
    float or None
        None: nothing has to be written.

    Raises
    ------
    PlanError
        ``local_layers_would_change``.
    """
    reached = tuple(layer for layer in facts.layers if _reached(layer, method))
    if not reached:
        return None
    if method in _CHANGES_BASE and all(layer.freq_base_can_be_kept for layer in reached):
        return reached[0].freq_base
    if force:
        return None
    raise PlanError(
        code="local_layers_would_change",
        field=f"{facts.architecture}.attention.sliding_window",
        message=f"{method.value} would change the rotation of {len(reached)} of "
        f"{len(facts.layers)} layers that see {reached[0].window:,} tokens and need no extension; "
        f"llama.cpp cannot keep them apart for {facts.architecture}{_way_out(facts, method)}; "
        "--force accepts it",
    )


def peculiarities(facts: ModelFacts, method: Method) -> list[ModelWarning]:
    """What is special about the layers of a model that is extended."""
    found: list[ModelWarning] = []
    if moves_nothing(facts):
        found.append(
            ModelWarning(
                "only_context_length",
                "no layer that sees the whole context rotates: every method only raises "
                "context_length, and γ says nothing about this model",
            )
        )
    elif facts.scales_attention and method in {Method.LINEAR, Method.YARN}:
        found.append(
            ModelWarning(
                "attention_scaled",
                f"llama.cpp multiplies every score of attention of {facts.architecture} by "
                f"(1 + 0.1 ln factor)² with {method.value}, the parts that are not rotated too",
            )
        )
    if facts.layout is Layout.SECTIONS:
        found.append(
            ModelWarning(
                "vision_positions",
                "positions of images are rotated by the same frequencies; what an extension does "
                "to them is not measured here",
            )
        )
    return found


def _reached(layer: LayerFacts, method: Method) -> bool:
    if layer.moves or not layer.rotates:
        return False
    return layer.follows_freq_base if method in _CHANGES_BASE else layer.follows_scaling


def _way_out(facts: ModelFacts, refused: Method) -> str:
    for method in Method:
        layers = [layer for layer in facts.layers if _reached(layer, method)]
        can_be_kept = method in _CHANGES_BASE and all(each.freq_base_can_be_kept for each in layers)
        if method is not refused and (not layers or can_be_kept):
            return f"; --method {method.value} leaves them alone"
    return ""
