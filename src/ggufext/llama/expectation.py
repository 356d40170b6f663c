"""How llama.cpp should rotate a layer, what shows how it does, and where the two differ."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ggufext.header.frequencies import factors_in_effect
from ggufext.header.rope_keys import FREQ_BASE_SWA, ORIGINAL_LENGTH
from ggufext.llama.rope_nodes import observe
from ggufext.llama.settings import ContextSettings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from ggufext.header.frequencies import Yarn
    from ggufext.header.layers import LayerFacts
    from ggufext.header.model import ModelFacts
    from ggufext.llama.process import LlamaProcess
    from ggufext.llama.rope_nodes import Observation, RopeNode
    from ggufext.llama.settings import Override
    from ggufext.planning.result import Plan


#: Context of the run that shows what llama.cpp does: a file's own would need its whole cache.
SMALL_CONTEXT = 256


@dataclass(frozen=True, slots=True)
class Expected:
    """One layer's rotation.

    Attributes
    ----------
    freq_base, freq_scale : float
        Base θ, and what every angle is multiplied by.
    mix : float
        How much of YaRN's mix takes place.
    betas : (float, float)
        beta_fast and beta_slow of that mix.
    original_length : int
        Training length that YaRN starts from, tokens.
    attn_factor : float
        What the rotated values are multiplied by, beside YaRN's own 1 + 0.1 ln(1/freq_scale).
    factors : tuple of float or None
        What each pair's angle is divided by.
    """

    freq_base: float
    freq_scale: float
    mix: float
    betas: tuple[float, float]
    original_length: int
    attn_factor: float = 1.0
    factors: tuple[float, ...] | None = None


def of_plan(plan: Plan, layer: LayerFacts, *, is_long: bool) -> Expected:
    """What a plan means for a layer of the original file.

    Parameters
    ----------
    is_long : bool
        Whether the context is above the plan's original length.
    """
    kept = any(edit.key.endswith(f".{FREQ_BASE_SWA}") for edit in plan.edits)
    follows = layer.moves or (layer.follows_freq_base and not kept)
    is_scaled = layer.moves or layer.follows_scaling
    factors = plan.long_factors if is_long else plan.short_factors
    mix = plan.yarn.mix(plan.scaling_type)
    attention = _node_attention(plan.yarn, plan.freq_scale_factor, mix)
    factor = plan.factor_key if layer.scaled_under_none else plan.freq_scale_factor
    return Expected(
        freq_base=plan.freq_base.after if follows else layer.freq_base,
        freq_scale=1.0 / factor if is_scaled else 1.0,
        mix=mix,
        betas=(plan.yarn.beta_fast, plan.yarn.beta_slow),
        original_length=plan.original_length,
        attn_factor=attention * plan.attention_factor_written if layer.follows_attention else 1.0,
        factors=factors if is_scaled else None,
    )


def of_facts(facts: ModelFacts, layer: LayerFacts, *, is_long: bool) -> Expected:
    """What a file's own keys and tensors mean for a layer; `is_long` as in `of_plan`."""
    scaling = facts.scaling
    is_scaled = layer.moves or layer.follows_scaling
    factor = scaling.factor if layer.scaled_under_none else scaling.factor_in_effect
    attention = _node_attention(scaling.yarn, scaling.factor_in_effect, scaling.mix)
    factors = factors_in_effect(dict(facts.factors), is_long=is_long)
    return Expected(
        freq_base=layer.freq_base,
        freq_scale=1.0 / factor if is_scaled else 1.0,
        mix=scaling.mix,
        betas=(scaling.yarn.beta_fast, scaling.yarn.beta_slow),
        original_length=facts.yarn_length,
        attn_factor=attention * scaling.attention_factor if layer.follows_attention else 1.0,
        factors=factors if is_scaled else None,
    )


def _node_attention(yarn: Yarn, factor: float, mix: float) -> float:
    """The node's attn_factor, which ggml multiplies by 1 + 0.1 ln f where it mixes."""
    attention = yarn.attention_factor(factor, mix)
    return attention / (1.0 + 0.1 * math.log(factor)) if mix else attention


def rotations(
    path: Path,
    expected: Sequence[Expected],
    expected_long: Sequence[Expected] | None,
    *,
    architecture: str,
    kv_overrides: Mapping[str, Override],
    process: LlamaProcess,
) -> Iterator[tuple[Observation, Sequence[Expected]]]:
    """Run a file on a token in a context of `SMALL_CONTEXT`, and in one above its original length.

    Parameters
    ----------
    path : Path
    expected : sequence of Expected
        One a layer.
    expected_long : sequence of Expected or None
        The same above the original length; None where it is no other, which is not run then.
    architecture : str
    kv_overrides : mapping
        Metadata values that stand in for the file's, by key.
    process : LlamaProcess

    Yields
    ------
    Observation, sequence of Expected
        What was seen, and what it is to be compared with.

    Raises
    ------
    EngineError
        As `observe`.
    """
    runs = [(SMALL_CONTEXT, expected, kv_overrides)]
    if expected_long is not None:
        # Without the cache that a context above the real original length needs.
        shorter = {**kv_overrides, f"{architecture}.{ORIGINAL_LENGTH}": SMALL_CONTEXT}
        runs.append((2 * SMALL_CONTEXT, expected_long, shorter))
    for n_ctx, planned, overrides in runs:
        settings = ContextSettings(n_ctx=n_ctx)
        yield (
            observe(path, tokens=(0,), settings=settings, kv_overrides=overrides, process=process),
            planned,
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
        if node.factors != expected[node.layer].factors:
            yield (
                f"llama.cpp rotates {node.tensor} of layer {node.layer} with "
                f"{_named(node.factors)}, planned {_named(expected[node.layer].factors)}"
            )
        for name, found, planned in _compared(node, expected[node.layer]):
            if not math.isclose(found, planned, rel_tol=1e-6):
                yield (
                    f"llama.cpp rotates {node.tensor} of layer {node.layer} with {name} "
                    f"{found:g}, planned {planned:g}"
                )


def _named(factors: tuple[float, ...] | None) -> str:
    if factors is None:
        return "no factors"
    return f"{len(factors)} factors from {factors[0]:g} to {factors[-1]:g}"


def _compared(node: RopeNode, expected: Expected) -> Iterator[tuple[str, float, float]]:
    yield "base", node.freq_base, expected.freq_base
    yield "scale", node.freq_scale, expected.freq_scale
    yield "attention factor", node.attn_factor, expected.attn_factor
    if expected.freq_scale != 1.0:
        # Where nothing is scaled, YaRN's mix has two equal sides.
        yield "yarn mix", node.ext_factor, expected.mix
        if expected.mix:
            yield "original length", node.n_ctx_orig, expected.original_length
            yield "beta_fast", node.beta_fast, expected.betas[0]
            yield "beta_slow", node.beta_slow, expected.betas[1]
