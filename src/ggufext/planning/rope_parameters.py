"""A plan as entries of a Hugging Face config.json, for Transformers 5 and 4.

Transformers 5 keeps everything in ``rope_parameters``, one dictionary or one a type of layer;
before, ``rope_theta`` and ``rope_scaling`` lay side by side.

Source: Transformers 5.23.0 and 4.57.6, modeling_rope_utils.py and configuration files.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from ggufext.errors import printable
from ggufext.header.architectures import Layout
from ggufext.header.frequencies import (
    LLAMA3_HIGH_TURNS,
    LLAMA3_LOW_TURNS,
    USUAL_YARN,
    inverse_frequencies,
)
from ggufext.planning import methods

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ggufext.header.facts import ModelFacts
    from ggufext.header.hf_config import HfConfig
    from ggufext.planning.result import Plan

ConfigObject = dict[str, object]

#: Frequencies that differ by less are the same: a plan's base and factor are 32-bit numbers.
_TOLERANCE = 1e-6

#: Architectures whose local layers have parameters of their own in Transformers.
_PARAMETERS_PER_LAYER_TYPE = frozenset({"gemma3", "gemma3n"})

#: Architectures whose classes in Transformers take plain or LongRoPE frequencies only: any others
#: are spelled as factors.
_LONGROPE_ONLY = frozenset({"phi3", "phimoe"})


class RopeType(Enum):
    """What a plan's frequencies are made of, by Transformers' names."""

    DEFAULT = "default"
    LINEAR = "linear"
    YARN = "yarn"
    LLAMA3 = "llama3"
    FACTORS = "longrope"
    """A factor for each pair that no formula here gives."""


@dataclass(frozen=True, slots=True)
class ConfigEntries:
    """Entries of config.json that hold a plan.

    Attributes
    ----------
    rope_type : RopeType
    rope : dict
        What Transformers 5 rotates by.
    older_rope : dict or None
        The same for Transformers 4; None where a class of its computes something else.
    length : dict
        What declares the new length.
    section : str or None
        Part of config.json that holds the language model.
    """

    rope_type: RopeType
    rope: ConfigObject
    older_rope: ConfigObject | None
    length: ConfigObject
    section: str | None

    def in_section(self, entries: ConfigObject) -> ConfigObject:
        """Entries inside the part that holds the language model."""
        return entries if self.section is None else {self.section: entries}


def _rope_type(made: Plan, facts: ModelFacts) -> RopeType:
    """What a plan's frequencies and attention factor are made of.

    The numbers decide, not the method's name: an engine computes them anew from few parameters.
    """
    base, dim, factor = made.freq_base.after, facts.rotary_dim, made.freq_scale_factor
    candidates = {
        RopeType.DEFAULT: methods.rebased(base, dim),
        RopeType.LINEAR: methods.linear(base, dim, factor),
        RopeType.YARN: methods.yarn(base, dim, factor, made.original_length, made.yarn),
    }
    for rope_type, rotation in candidates.items():
        # Of YaRN an entry says another.
        said = rope_type is RopeType.YARN and made.scaling_type == RopeType.YARN.value
        if (said or _same_attention(rotation, made)) and _same(rotation.inv_freq, made.inv_freq):
            return rope_type
    if made.attention_factor == 1.0 and _llama3(made, facts) is not None:
        return RopeType.LLAMA3
    return RopeType.FACTORS


def _pair_factors(made: Plan, facts: ModelFacts) -> tuple[float, ...]:
    """What the plan divides each pair by in long contexts, beside its base."""
    native = inverse_frequencies(made.freq_base.after, facts.rotary_dim)
    return tuple(n / after for n, after in zip(native, made.inv_freq, strict=True))


def _llama3(made: Plan, facts: ModelFacts) -> tuple[float, int] | None:
    """Factor and original length, where that is what the plan does at every length."""
    if made.scaling_type == RopeType.FACTORS.value:
        return None
    native = inverse_frequencies(made.freq_base.after, facts.rotary_dim)
    return methods.llama3_parameters(native, _pair_factors(made, facts))


def config_entries(made: Plan, facts: ModelFacts, config: HfConfig | None) -> ConfigEntries | str:
    """A plan as entries of config.json, or why Transformers cannot rotate so.

    Parameters
    ----------
    made : Plan
    facts : ModelFacts
    config : HfConfig or None
        The configuration the facts come from; None for a GGUF file, whose configuration can only
        be inferred.
    """
    rope_type = _rope_type(made, facts)
    own_attention = facts.architecture in _LONGROPE_ONLY and rope_type is not RopeType.DEFAULT
    if own_attention:
        rope_type = RopeType.FACTORS
    if config is None and facts.layout is Layout.SECTIONS:
        return (
            "its positions come in sections, whose sizes only config.json spells as Transformers "
            "reads them: plan the config.json"
        )
    local = _local_parameters(facts, config)
    if isinstance(local, str):
        return local
    if obstacle := _attention_differs(made, facts):
        return obstacle
    kept = _partial_rotary_factor(facts) if config is None else dict(config.kept)
    parameters = _parameters(made, facts, rope_type) | kept
    per_type = {"full_attention": parameters, "sliding_attention": local}
    return ConfigEntries(
        rope_type=rope_type,
        rope={"rope_parameters": parameters if local is None else per_type},
        # There these classes take no attention factor but compute it from the lengths.
        older_rope=None if own_attention else _older(parameters, local),
        length={"max_position_embeddings": made.target_length},
        section=None if config is None else config.section,
    )


def _parameters(made: Plan, facts: ModelFacts, rope_type: RopeType) -> ConfigObject:
    found: ConfigObject = {"rope_type": rope_type.value, "rope_theta": made.freq_base.after}
    original = made.original_length
    if facts.temperature_scale:
        # Ministral 3: queries grow with the logarithm of their position over the original length.
        found["llama_4_scaling_beta"] = _decimal(facts.temperature_scale)
        found["original_max_position_embeddings"] = original
    if rope_type is RopeType.DEFAULT:
        return found
    if rope_type is RopeType.LINEAR:
        return found | {"factor": _config_factor(made, original)}
    found["original_max_position_embeddings"] = original
    if rope_type is RopeType.YARN:
        return found | {"factor": _config_factor(made, original)} | _yarn_entries(made)
    if rope_type is RopeType.LLAMA3 and (llama3 := _llama3(made, facts)) is not None:
        return found | {
            "factor": llama3[0],
            "original_max_position_embeddings": llama3[1],
            "low_freq_factor": LLAMA3_LOW_TURNS,
            "high_freq_factor": LLAMA3_HIGH_TURNS,
        }
    long = _pair_factors(made, facts)
    # Without short factors contexts up to the original length rotate as trained.
    short = made.short_factors or (1.0,) * len(long)
    if made.scaling_type != RopeType.FACTORS.value:
        short = long
    return found | {
        "factor": made.target_length / original,
        "attention_factor": made.attention_factor,
        "short_factor": short,
        "long_factor": long,
    }


def _yarn_entries(made: Plan) -> ConfigObject:
    """What differs from the usual betas and attention factor."""
    found: ConfigObject = {}
    usual, keys = USUAL_YARN, made.yarn
    if (keys.beta_fast, keys.beta_slow) != (usual.beta_fast, usual.beta_slow):
        found |= {"beta_fast": _decimal(keys.beta_fast), "beta_slow": _decimal(keys.beta_slow)}
    if keys.mscale_all_dim:
        mscales = {"mscale": keys.mscale, "mscale_all_dim": keys.mscale_all_dim}
        found |= {name: _decimal(value) for name, value in mscales.items()}
    if made.attention_factor_written != 1.0:
        found["attention_factor"] = _decimal(made.attention_factor)
    return found


def _attention_differs(made: Plan, facts: ModelFacts) -> str | None:
    """Where llama.cpp multiplies scores or queries as Transformers does not; None: nowhere."""
    if facts.temperature_scale and not facts.original_length_acts:
        return (
            "its queries grow with their position from attention.temperature_length on, which "
            "only config.json spells as Transformers reads it: plan the config.json"
        )
    if not facts.scales_attention:
        return None
    keys, factor = made.yarn, made.freq_scale_factor
    here = keys.score_factor(factor, keys.mix(made.scaling_type))
    there = (1.0 + 0.1 * keys.mscale_all_dim * math.log(max(1.0, factor))) ** 2
    if math.isclose(here, there, rel_tol=_TOLERANCE):
        return None
    return (
        f"llama.cpp multiplies every score of attention by {here:.4g} under this plan, "
        f"Transformers by {there:.4g}"
    )


def _decimal(value: float) -> float:
    """A 32-bit number in the few digits that it was written with."""
    return float(f"{value:.7g}")


def _config_factor(made: Plan, original: int) -> float:
    """The plan's factor in few digits, never so small that the target is missed.

    vLLM multiplies it with the original length and refuses a longer ``--max-model-len``.
    """
    exact = made.target_length / original
    if not math.isclose(exact, made.freq_scale_factor, rel_tol=_TOLERANCE):
        return made.freq_scale_factor
    for digits in range(1, 17):
        short = float(f"{exact:.{digits}g}")
        if math.isclose(short, exact, rel_tol=2.0**-25) and short * original >= made.target_length:
            return short
    return math.nextafter(exact, math.inf) if exact * original < made.target_length else exact


def _older(parameters: Mapping[str, object], local: Mapping[str, object] | None) -> ConfigObject:
    """The same for Transformers 4: the base outside, the scaling in a dictionary or null."""
    original = "original_max_position_embeddings"
    outside = {"rope_theta", "partial_rotary_factor"}
    found: ConfigObject = {"rope_theta": parameters["rope_theta"]}
    if local is not None:
        found["rope_local_base_freq"] = local["rope_theta"]
    if parameters["rope_type"] == RopeType.FACTORS.value:
        # Here it tells from which length on the long factors act.
        found[original] = parameters[original]
    scaling = {name: value for name, value in parameters.items() if name not in outside}
    plain = scaling == {"rope_type": RopeType.DEFAULT.value}
    return found | {"rope_scaling": None if plain else scaling}


def _local_parameters(facts: ModelFacts, config: HfConfig | None) -> ConfigObject | str | None:
    """Parameters of sliding-window layers; None where every layer takes the plan's."""
    if config is not None:
        return None if config.local is None else dict(config.local)
    unmoved = {layer.freq_base for layer in facts.layers if layer.rotates and not layer.moves}
    if not unmoved:
        return None
    if facts.architecture not in _PARAMETERS_PER_LAYER_TYPE or len(unmoved) > 1:
        name = printable(facts.architecture, 64)
        return (
            f"Transformers rotates every layer of {name} with the same parameters, and this plan "
            "leaves some layers as they are"
        )
    return {"rope_type": RopeType.DEFAULT.value, "rope_theta": unmoved.pop()}


def _partial_rotary_factor(facts: ModelFacts) -> ConfigObject:
    if facts.rotary_dim == facts.head_dim:
        return {}
    if any(layer.key_length != layer.value_length for layer in facts.layers):
        return {}  # latent attention: Transformers' head is the rotated part alone
    return {"partial_rotary_factor": facts.rotary_dim / facts.head_dim}


def _same_attention(rotation: methods.Rotation, made: Plan) -> bool:
    return math.isclose(rotation.attention_factor, made.attention_factor, rel_tol=_TOLERANCE)


def _same(first: Sequence[float], second: Sequence[float]) -> bool:
    return all(math.isclose(a, b, rel_tol=_TOLERANCE) for a, b in zip(first, second, strict=True))
