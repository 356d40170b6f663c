"""The keys of rotation and attention that llama.cpp knows, and what each has to do with a plan.

`NEUTRAL` and `ACTING` together are every key of llama.cpp that begins with ``rope.`` or
``attention.``. Which architectures read those of `READ_BY_SOME` stands in architectures.toml.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
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
