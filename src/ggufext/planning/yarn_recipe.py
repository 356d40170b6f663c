"""YaRN with betas and an attention factor of a recipe, as far as a file can hold them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ggufext.errors import PlanError
from ggufext.header.rope_keys import ATTN_FACTOR, YARN_BETA_FAST
from ggufext.planning.methods import as_float32
from ggufext.planning.native import NativeKind, can_keep_short, refuse

if TYPE_CHECKING:
    from ggufext.header.facts import ModelFacts
    from ggufext.header.frequencies import Yarn
    from ggufext.planning.methods import Rotation
    from ggufext.planning.native import NativeScaling
    from ggufext.planning.request import PlanRequest, YarnRecipe


def yarn_keys(facts: ModelFacts, native: NativeScaling, request: PlanRequest) -> Yarn:
    """YaRN's keys with the betas that a recipe says.

    Raises
    ------
    PlanError
        ``bad_recipe``, ``cannot_combine``, ``rope_keys_not_read``.
    """
    usual, asked = facts.scaling.yarn, request.yarn
    if asked is None:
        return usual
    keys = replace(
        usual,
        beta_fast=as_float32(asked.beta_fast or usual.beta_fast),
        beta_slow=as_float32(asked.beta_slow or usual.beta_slow),
    )
    if keys == usual:
        return usual
    if keys.beta_fast <= keys.beta_slow:
        raise PlanError(
            code="bad_recipe",
            field="plan.beta_fast",
            message=f"is {keys.beta_fast:g}; expected more than beta_slow, which is "
            f"{keys.beta_slow:g}",
        )
    if native.kind is NativeKind.YARN:
        refuse(
            facts,
            f"betas other than its {usual.beta_fast:g} and {usual.beta_slow:g} would take the "
            "trained frequencies away; leave them out of the recipe",
        )
    if not (facts.reads_betas or request.keep_short):
        way_out = ", or --keep-short writes them as factors"
        raise PlanError(
            code="rope_keys_not_read",
            field=f"{facts.architecture}.{YARN_BETA_FAST}",
            message=f"llama.cpp does not read YaRN's betas for {facts.architecture}, where they "
            f"are {usual.beta_fast:g} and {usual.beta_slow:g}; leave them out of the recipe"
            f"{way_out if can_keep_short(facts, native) else ''}",
        )
    return keys


def with_attention(
    facts: ModelFacts, asked: YarnRecipe | None, rotation: Rotation
) -> tuple[Rotation, float]:
    """The rotation with the attention factor that a recipe says, and rope.scaling.attn_factor.

    Raises
    ------
    PlanError
        ``cannot_combine``.
    """
    if asked is None or asked.attention_factor is None:
        return rotation, 1.0
    if facts.scales_attention:
        raise PlanError(
            code="cannot_combine",
            field=f"{facts.architecture}.{ATTN_FACTOR}",
            message=f"llama.cpp multiplies every score of attention of {facts.architecture} by "
            "it, those of parts that are not rotated too; leave attention_factor out",
        )
    written = as_float32(asked.attention_factor / rotation.attention_factor)
    return replace(rotation, attention_factor=asked.attention_factor), written
