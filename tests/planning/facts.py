"""Facts of well-known models, without files, and what tests look at in a plan for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ggufext.header.architectures import FactorSupport, Layout, Support
from ggufext.header.facts import ModelFacts, Scaling
from ggufext.header.layers import LayerFacts

if TYPE_CHECKING:
    from ggufext.planning.result import Plan

NO_SCALING = Scaling("linear", 1.0, None, 1.0, ())


def facts(
    *,
    train_length: int,
    freq_base: float,
    rotary_dim: int = 128,
    architecture: str = "llama",
    support: Support = Support.VERIFIED,
    layers: int = 32,
    heads_kv: int = 8,
    scaling: Scaling = NO_SCALING,
    has_scaling_factor: bool = False,
    factors: dict[str, tuple[float, ...]] | None = None,
    factor_support: FactorSupport = FactorSupport.NONE,
) -> ModelFacts:
    """Facts of a model without local layers."""
    layer = LayerFacts(
        window=None,
        freq_base=freq_base,
        moves=True,
        head_count_kv=heads_kv,
        key_length=rotary_dim,
        value_length=rotary_dim,
    )
    is_default = scaling.type == "linear" and scaling.factor == 1.0
    return ModelFacts(
        architecture=architecture,
        support=support,
        layout=Layout.INTERLEAVED,
        train_length=train_length,
        train_length_source=f"{architecture}.context_length",
        context_length=train_length,
        freq_base=freq_base,
        rotary_dim=rotary_dim,
        head_dim=rotary_dim,
        scaling=scaling,
        has_scaling_factor=has_scaling_factor,
        layers=(layer,) * layers,
        metadata=(
            (f"{architecture}.context_length", train_length),
            (f"{architecture}.rope.freq_base", freq_base),
            (f"{architecture}.rope.freq_base_swa", None),
            (f"{architecture}.rope.scaling.type", None if is_default else scaling.type),
            (
                f"{architecture}.rope.scaling.factor",
                scaling.factor if has_scaling_factor or scaling.factor != 1.0 else None,
            ),
            (
                f"{architecture}.rope.scaling.original_context_length",
                scaling.original_context_length,
            ),
        ),
        factors=tuple((factors or {}).items()),
        factor_support=factor_support,
    )


LLAMA_2 = facts(train_length=4096, freq_base=1e4)
LLAMA_3 = facts(train_length=8192, freq_base=5e5)


def edits(made: Plan) -> dict[str, object]:
    """New values by key, without the architecture's prefix."""
    return {edit.key.partition(".")[2]: edit.after for edit in made.edits}


def tensors(made: Plan) -> dict[str, tuple[float, ...]]:
    """New factors by the tensor's name."""
    return {edit.name: edit.after for edit in made.tensor_edits}


def codes(made: Plan) -> set[str]:
    """Codes of the plan's warnings."""
    return {warning.code for warning in made.warnings}
