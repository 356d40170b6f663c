"""Frequencies of rotated pairs, and what scales them: tensors of factors, llama3, LongRoPE, YaRN.

Symbols: f factor of an extension, θ RoPE base, d rotated dimensions, ω_i = θ^(−2i/d) the inverse
frequency of pair i in radians per token.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ggufext.errors import HeaderError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ggufext.header.header import Header, TensorInfo

#: For every context.
ROPE_FREQS = "rope_freqs.weight"
#: For contexts above rope.scaling.original_context_length.
ROPE_FACTORS_LONG = "rope_factors_long.weight"
#: For contexts up to it.
ROPE_FACTORS_SHORT = "rope_factors_short.weight"

FACTOR_TENSORS = (ROPE_FREQS, ROPE_FACTORS_LONG, ROPE_FACTORS_SHORT)

#: Most pairs of a head taken for real.
MOST_PAIRS = 32_768

_FLOAT_BYTES = 4

#: Turns within the original length below which llama3 interpolates a pair fully, and above which
#: it leaves the pair alone: those of every Llama 3.1 and 3.2.
LLAMA3_LOW_TURNS = 1.0
LLAMA3_HIGH_TURNS = 4.0


def inverse_frequencies(freq_base: float, rotary_dim: int) -> tuple[float, ...]:
    """ω_i = θ^(−2i/d) for each pair, radians per token.

    Parameters
    ----------
    freq_base : float
        RoPE base θ, > 0.
    rotary_dim : int
        Rotated dimensions per head d, even and positive.

    Returns
    -------
    tuple of float
        d/2 values, falling from 1.

    Source: Su et al. 2021, RoFormer, section 3.2.2.
    """
    return tuple(freq_base ** (-2.0 * i / rotary_dim) for i in range(rotary_dim // 2))


def factor_tensors(header: Header) -> tuple[TensorInfo, ...]:
    """Descriptions of the frequency-factor tensors of a file."""
    return tuple(tensor for tensor in header.tensors if tensor.name in FACTOR_TENSORS)


def read_factors(
    header: Header, read: Callable[[TensorInfo], bytes]
) -> tuple[tuple[str, tuple[float, ...]], ...]:
    """Values of the frequency-factor tensors, by name in the order of the file.

    Parameters
    ----------
    header : Header
    read : callable
        Gives the bytes of a tensor.

    Raises
    ------
    HeaderError
        ``tensor_type``, ``tensor_shape``, or ``nonsense_value`` for a factor that is not a finite
        number above 0.
    """
    found = []
    for tensor in factor_tensors(header):
        _check_factor_tensor(header, tensor)
        values = _decode_factors(read(tensor))
        wrong = next((v for v in values if not (math.isfinite(v) and v > 0.0)), None)
        if wrong is not None:
            raise HeaderError(
                code="nonsense_value",
                field=tensor.name,
                path=header.path,
                message=f"holds the factor {wrong!r}; expected finite numbers above 0; convert "
                "the model again",
            )
        found.append((tensor.name, values))
    return tuple(found)


def _check_factor_tensor(header: Header, tensor: TensorInfo) -> None:
    """Refuse a factor tensor that ggml could not rotate with."""
    if tensor.type != "F32":
        raise HeaderError(
            code="tensor_type",
            field=tensor.name,
            path=header.path,
            message=f"has type {tensor.type}; frequency factors must be F32: convert the model "
            "again",
        )
    if len(tensor.shape) != 1 or tensor.shape[0] > MOST_PAIRS:
        raise HeaderError(
            code="tensor_shape",
            field=tensor.name,
            path=header.path,
            message=f"has shape {tensor.shape}; expected one number a pair, at most "
            f"{MOST_PAIRS:,}: convert the model again",
        )


def factors_in_effect(
    values: Mapping[str, tuple[float, ...]], *, is_long: bool
) -> tuple[float, ...] | None:
    """The factors that llama.cpp uses (llama_model::get_rope_factors); None: none.

    Parameters
    ----------
    values : mapping of str to tuple of float
        Of the factor tensors, by name.
    is_long : bool
        Whether the context is above rope.scaling.original_context_length.
    """
    if ROPE_FREQS in values:
        return values[ROPE_FREQS]
    return values.get(ROPE_FACTORS_LONG if is_long else ROPE_FACTORS_SHORT)


def encode_factors(values: tuple[float, ...]) -> bytes:
    """Factors as a tensor holds them: little-endian float32."""
    return struct.pack(f"<{len(values)}f", *values)


def _decode_factors(data: bytes) -> tuple[float, ...]:
    """Factors from a tensor's bytes; the inverse of `encode_factors`."""
    return struct.unpack(f"<{len(data) // _FLOAT_BYTES}f", data)


def llama3_factors(
    inv_freq: tuple[float, ...],
    factor: float,
    original_length: float,
    *,
    low_turns: float = LLAMA3_LOW_TURNS,
    high_turns: float = LLAMA3_HIGH_TURNS,
) -> tuple[float, ...]:
    """What llama3 divides each frequency by: 1 for fast pairs, f for slow ones, smooth between.

    Parameters
    ----------
    inv_freq : tuple of float
        Frequencies as trained, radians per token.
    factor : float
        f, > 0.
    original_length : float
        Tokens that the wavelengths are compared with.
    low_turns, high_turns : float
        Turns within that length below which a pair is slow and above which it is fast, low < high.

    Source: Llama 3.1's rope_scaling of type llama3 (transformers, modeling_rope_utils.py).
    """
    factors = []
    for w in inv_freq:
        turns = original_length * w / (2.0 * math.pi)
        kept = min(1.0, max(0.0, (turns - low_turns) / (high_turns - low_turns)))
        factors.append(1.0 / ((1.0 - kept) / factor + kept))
    return tuple(factors)


def longrope_attention_factor(factor: float, training_length: float) -> float:
    """√(1 + ln f / ln T), 1 without an extension (Ding et al. 2024, LongRoPE)."""
    if factor <= 1.0:
        return 1.0
    return math.sqrt(1.0 + math.log(factor) / math.log(training_length))


@dataclass(frozen=True, slots=True)
class Yarn:
    """How llama.cpp scales frequencies and attention for one file, beside factor and length.

    Attributes
    ----------
    beta_fast, beta_slow : float
        Turns within the original length above which YaRN leaves a pair alone, and below which it
        interpolates the pair fully.
    ext_factor : float or None
        Share of that mix that takes place, whatever the scaling type; None: all of it with type
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
