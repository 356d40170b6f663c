"""Layers that an extension is not meant for: they keep their rotation, or it is refused."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ggufext.errors import ModelWarning, PlanError
from ggufext.header.architectures import Layout
from ggufext.planning.combining import factor_key

if TYPE_CHECKING:
    from ggufext.header.layers import LayerFacts
    from ggufext.header.model import ModelFacts
    from ggufext.planning.combining import Combination


def moves_nothing(facts: ModelFacts) -> bool:
    """Whether no layer rotates that sees the whole context: then an extension rotates none."""
    return not any(layer.moves for layer in facts.layers)


def local_freq_base(facts: ModelFacts, made: Combination, *, force: bool) -> float | None:
    """Value of rope.freq_base_swa that keeps the local layers as they were trained.

    Parameters
    ----------
    facts : ModelFacts
    made : Combination
        For the layers that the extension is meant for.
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
    local = tuple(layer for layer in facts.layers if layer.rotates and not layer.moves)
    scaled = tuple(layer for layer in local if layer.follows_scaling)
    based = tuple(layer for layer in local if layer.follows_freq_base)
    base_can_be_kept = all(layer.freq_base_can_be_kept for layer in based)
    rotation = made.rotation
    # gamma does not go on top of a model's own scaling.
    way_out = "gamma" if base_can_be_kept and not facts.scaling.in_effect else None
    if made.tensors and scaled and not force:
        raise _refusal(facts, scaled, "rope.scaling.type", way_out)
    if any(_rescaled(facts, made, layer) for layer in scaled) and not force:
        raise _refusal(facts, scaled, "rope.scaling.factor", way_out)
    if rotation.freq_base == facts.freq_base or not based:
        return None
    if base_can_be_kept:
        return based[0].freq_base
    if force:
        return None
    raise _refusal(facts, based, "rope.freq_base", None if scaled else "yarn")


def _rescaled(facts: ModelFacts, made: Combination, layer: LayerFacts) -> bool:
    """Whether positions of a local layer that scaling reaches are divided by another number."""
    if layer.scaled_under_none:
        return factor_key(facts, made) != facts.scaling.factor
    return made.rotation.freq_scale_factor != facts.scaling.factor_in_effect


def _refusal(
    facts: ModelFacts, layers: tuple[LayerFacts, ...], key: str, way_out: str | None
) -> PlanError:
    instead = f"; --method {way_out} leaves them alone" if way_out else ""
    return PlanError(
        code="local_layers_would_change",
        field=f"{facts.architecture}.{key}",
        message=f"would change the rotation of {len(layers)} of {len(facts.layers)} layers too, "
        f"which see {layers[0].window:,} tokens and need no extension; llama.cpp cannot keep "
        f"them apart for {facts.architecture}{instead}; --force accepts it",
    )


def peculiarities(facts: ModelFacts, made: Combination) -> list[ModelWarning]:
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
    elif facts.scales_attention:
        scaling, keys = facts.scaling, made.yarn or facts.scaling.yarn
        factor = made.rotation.freq_scale_factor
        before = scaling.yarn.score_factor(scaling.factor_in_effect, scaling.mix)
        after = keys.score_factor(factor, keys.mix(made.form.value or scaling.type))
        if not math.isclose(before, after):
            found.append(
                ModelWarning(
                    "attention_scaled",
                    f"llama.cpp multiplies every score of attention of {facts.architecture} by "
                    f"{after:.4g} under this plan ({before:.4g} today), the parts that are not "
                    "rotated too; "
                    + (
                        f"yarn_log_multiplier counts as mscale_all_dim {keys.mscale_all_dim:.4g}"
                        if keys.mscale_all_dim
                        else "the file has no yarn_log_multiplier"
                    ),
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
