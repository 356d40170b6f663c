"""The keys of rotation and attention that llama.cpp knows, and what each has to do with a plan.

`NEUTRAL` and `ACTING` together are every key of llama.cpp that begins with ``rope.`` or
``attention.``. Which architectures read those of `READ_BY_SOME` stands in architectures.toml.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ggufext.header.architectures import Architecture
    from ggufext.header.key_reader import KeyReader

CONTEXT_LENGTH = "context_length"
FREQ_BASE = "rope.freq_base"
FREQ_BASE_SWA = "rope.freq_base_swa"
SCALING_TYPE = "rope.scaling.type"
SCALING_FACTOR = "rope.scaling.factor"
ORIGINAL_LENGTH = "rope.scaling.original_context_length"
ATTN_FACTOR = "rope.scaling.attn_factor"
YARN_EXT_FACTOR = "rope.scaling.yarn_ext_factor"
YARN_ATTN_FACTOR = "rope.scaling.yarn_attn_factor"
YARN_BETA_FAST = "rope.scaling.yarn_beta_fast"
YARN_BETA_SLOW = "rope.scaling.yarn_beta_slow"
YARN_LOG_MULTIPLIER = "rope.scaling.yarn_log_multiplier"
TEMPERATURE_SCALE = "attention.temperature_scale"
TEMPERATURE_LENGTH = "attention.temperature_length"

#: Keys, without the architecture's prefix, that a plan may write.
EDITED = (
    CONTEXT_LENGTH,
    FREQ_BASE,
    FREQ_BASE_SWA,
    SCALING_TYPE,
    SCALING_FACTOR,
    ORIGINAL_LENGTH,
    ATTN_FACTOR,
    YARN_EXT_FACTOR,
)

#: Keys that converters write for many architectures and llama.cpp reads for some.
READ_BY_SOME = (
    YARN_EXT_FACTOR,
    YARN_ATTN_FACTOR,
    YARN_BETA_FAST,
    YARN_BETA_SLOW,
    YARN_LOG_MULTIPLIER,
    "rope.scaling.alpha",
    TEMPERATURE_SCALE,
    TEMPERATURE_LENGTH,
)

#: Keys that decide what rotates and how, or what queries are multiplied by at a position: the
#: facts of a model or of its layers hold them.
ACTING = (
    FREQ_BASE,
    FREQ_BASE_SWA,
    "rope.dimension_count",
    "rope.dimension_count_swa",
    "rope.dimension_sections",
    SCALING_TYPE,
    SCALING_FACTOR,
    "rope.scale_linear",
    ORIGINAL_LENGTH,
    ATTN_FACTOR,
    "rope.scaling.finetuned",
    *(key for key in READ_BY_SOME if key != TEMPERATURE_LENGTH),
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.value_length",
    "attention.key_length_mla",
    "attention.key_length_swa",
    "attention.value_length_swa",
    "attention.sliding_window",
    "attention.sliding_window_pattern",
    "attention.rope_pattern",
    "attention.shared_kv_layers",
    "attention.recurrent_layers",
)

_NORM = "a norm's constant"
_WIDTH = "a width of matrices"
_SPARSE = "which keys a sparse layer looks at, by their contents"
_OTHER_MODELS = "read for architectures without RoPE only"
_UNVERIFIED = "read for an architecture that is not verified: writing needs --force"

#: Keys that leave a rotation alone, and why.
NEUTRAL: Mapping[str, str] = {
    "attention.max_alibi_bias": _OTHER_MODELS,
    "attention.relative_buckets_count": _OTHER_MODELS,
    "attention.decay_lora_rank": _OTHER_MODELS,
    "attention.iclr_lora_rank": _OTHER_MODELS,
    "attention.value_residual_mix_lora_rank": _OTHER_MODELS,
    "attention.gate_lora_rank": _OTHER_MODELS,
    "attention.layer_norm_epsilon": _NORM,
    "attention.layer_norm_rms_epsilon": _NORM,
    "attention.group_norm_epsilon": _NORM,
    "attention.group_norm_groups": _NORM,
    "attention.q_lora_rank": _WIDTH,
    "attention.kv_lora_rank": _WIDTH,
    "attention.kv_lora_rank_swa": _WIDTH,
    "attention.output_lora_rank": _WIDTH,
    "attention.output_group_count": _WIDTH,
    "attention.value_length_mla": _WIDTH,
    "attention.key_length_mla_swa": _UNVERIFIED,
    "attention.value_length_mla_swa": _UNVERIFIED,
    "attention.compress_ratios": _UNVERIFIED,
    "attention.compress_rope_freq_base": _UNVERIFIED,
    TEMPERATURE_LENGTH: "where queries begin to grow with their position; no plan changes it",
    "attention.causal": "which keys a query may see",
    "attention.clamp_kqv": "acts before the rotation, at every position alike",
    "attention.scale": "multiplies every score alike; no plan changes it",
    "attention.output_scale": "acts behind the attention",
    "attention.value_scale": "values are not rotated",
    "attention.indexer.head_count": _SPARSE,
    "attention.indexer.key_length": _SPARSE,
    "attention.indexer.top_k": _SPARSE,
    "attention.indexer.block_size": _SPARSE,
    "attention.indexer.local_blocks": _SPARSE,
    "attention.indexer.types": _SPARSE,
    "attention.indexer.kpool": _SPARSE,
    "attention.indexer.kpool_select_tail": _SPARSE,
}


def unread_suffixes(entry: Architecture) -> tuple[str, ...]:
    """Keys, without prefix, that converters write and llama.cpp does not use here."""
    return tuple(key for key in READ_BY_SOME if key not in entry.reads)


@dataclass(frozen=True, slots=True)
class Yarn:
    """How llama.cpp scales frequencies and attention for one file, beside factor and length.

    Attributes
    ----------
    beta_fast, beta_slow : float
        Turns within the original length above which YaRN leaves a pair alone, and below which it
        interpolates the pair fully.
    ext_factor : float or None
        How much of that mix takes place, whatever the scaling type; None: all of it with type
        yarn, else none.
    attn_factor : float
        What queries and keys are multiplied by where nothing is mixed.
    mscale, mscale_all_dim : float
        Weights of ln f in the attention factor of rotated values, and in what it is divided by;
        mscale_all_dim 0: it is divided by nothing.

    Source: llama-context.cpp; the defaults are those of Peng et al. 2023, section 3.2.
    """

    beta_fast: float = 32.0
    beta_slow: float = 1.0
    ext_factor: float | None = None
    attn_factor: float = 1.0
    mscale: float = 1.0
    mscale_all_dim: float = 0.0

    def mix(self, scaling_type: str) -> float:
        """The ext_factor in effect: 0 where every pair is scaled alike."""
        if self.ext_factor is None:
            return 1.0 if scaling_type == "yarn" else 0.0
        return self.ext_factor

    def attention_factor(self, factor: float, mix: float) -> float:
        """What rotated queries and keys are multiplied by, rope.scaling.attn_factor aside.

        Parameters
        ----------
        factor : float
            f, > 0.
        mix : float
            As `mix` gives it.
        """
        if mix == 0.0:
            return self.attn_factor
        if self.mscale_all_dim == 0.0:
            return _mscale(factor, 1.0)
        return _mscale(factor, self.mscale) / _mscale(factor, self.mscale_all_dim)

    def score_factor(self, factor: float, mix: float) -> float:
        """What latent attention (MLA) multiplies every score by, rotated or not.

        Source: deepseek2.cpp, attn_factor_org and mscale.
        """
        log = 0.1 * math.log(factor)
        attention = self.attention_factor(factor, mix)
        if mix == 0.0:
            attention *= 1.0 + log
        return (attention * (1.0 + self.mscale_all_dim * log)) ** 2


#: YaRN as published, and as llama.cpp mixes where no key says otherwise.
USUAL_YARN = Yarn()


def _mscale(factor: float, weight: float) -> float:
    return 1.0 if factor <= 1.0 else 0.1 * weight * math.log(factor) + 1.0


def yarn_of(read: KeyReader, entry: Architecture) -> Yarn:
    """What a file's keys make of YaRN for an architecture.

    Raises
    ------
    HeaderError
        ``wrong_type`` or ``nonsense_value``.
    """

    def found(key: str) -> float | None:
        return read.finite(key) if key in entry.reads else None

    def positive(key: str, default: float) -> float:
        return (read.positive(key) if key in entry.reads else None) or default

    ext_factor = found(YARN_EXT_FACTOR)
    all_dim = (found(YARN_LOG_MULTIPLIER) or 0.0) / entry.yarn_log_multiplier_unit
    return Yarn(
        beta_fast=positive(YARN_BETA_FAST, entry.yarn_beta_fast),
        beta_slow=positive(YARN_BETA_SLOW, 1.0),
        # llama.cpp takes a negative one for none.
        ext_factor=None if ext_factor is None or ext_factor < 0.0 else ext_factor,
        attn_factor=positive(YARN_ATTN_FACTOR, 1.0),
        mscale=all_dim if all_dim and entry.mscale_is_multiplier else 1.0,
        mscale_all_dim=all_dim,
    )
