"""How llama.cpp should rotate a layer, and where a ROPE node differs from that."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ggufext.planning.methods import Method

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ggufext.audit.rope_nodes import RopeNode
    from ggufext.header.layers import LayerFacts
    from ggufext.header.model import ModelFacts
    from ggufext.planning.plan import Plan


@dataclass(frozen=True, slots=True)
class Expected:
    """One layer's rotation.

    Attributes
    ----------
    freq_base, freq_scale : float
        Base θ, and what every angle is multiplied by.
    yarn : bool
    original_length : int
        Training length that YaRN starts from, tokens.
    """

    freq_base: float
    freq_scale: float
    yarn: bool
    original_length: int


def of_plan(plan: Plan, layer: LayerFacts) -> Expected:
    """What a plan means for a layer of the original file."""
    kept = any(edit.key.endswith(".rope.freq_base_swa") for edit in plan.edits)
    follows = layer.moves or (layer.follows_freq_base and not kept)
    scale = 1.0 / plan.freq_scale_factor if layer.follows_scaling or layer.moves else 1.0
    return Expected(
        freq_base=plan.freq_base.after if follows else layer.freq_base,
        freq_scale=scale,
        yarn=plan.method is Method.YARN and scale != 1.0,
        original_length=plan.train_length.value,
    )


def of_facts(facts: ModelFacts, layer: LayerFacts) -> Expected:
    """What a file's own keys mean for a layer."""
    scaling = facts.scaling
    scaled = scaling.type != "none" and (layer.moves or layer.follows_scaling)
    scale = 1.0 / scaling.factor if scaled else 1.0
    return Expected(
        freq_base=layer.freq_base,
        freq_scale=scale,
        yarn=scaling.type == "yarn" and scale != 1.0,
        original_length=scaling.original_context_length or facts.train_length,
    )


def differences(nodes: Sequence[RopeNode], expected: Sequence[Expected]) -> Iterator[str]:
    """Where llama.cpp rotates otherwise, a sentence each.

    Parameters
    ----------
    nodes : sequence of RopeNode
    expected : sequence of Expected
        One a layer.
    """
    for node in nodes:
        for name, found, planned in _compared(node, expected[node.layer]):
            if not math.isclose(found, planned, rel_tol=1e-6):
                yield (
                    f"llama.cpp rotates {node.tensor} of layer {node.layer} with {name} "
                    f"{found:g}, planned {planned:g}"
                )


def _compared(node: RopeNode, expected: Expected) -> Iterator[tuple[str, float, float]]:
    yield "base", node.freq_base, expected.freq_base
    yield "scale", node.freq_scale, expected.freq_scale
    yield "attention factor", node.attn_factor, 1.0
    if expected.freq_scale != 1.0:
        # Where nothing is scaled, YaRN's mix has two equal sides.
        yield "yarn mix", node.ext_factor, 1.0 if expected.yarn else 0.0
        if expected.yarn:
            yield "original length", node.n_ctx_orig, expected.original_length
