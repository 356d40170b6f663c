"""The frequencies of each extension method, from the native ones.

Symbols: T training length, L target length, f = L/T, θ RoPE base, d rotated dimensions,
ω_i = θ^(−2i/d) the inverse frequency of pair i in radians per token.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from ggufext.errors import PlanError
from ggufext.header.frequencies import (
    LLAMA3_HIGH_TURNS,
    LLAMA3_LOW_TURNS,
    USUAL_YARN,
    inverse_frequencies,
    llama3_factors,
)

if TYPE_CHECKING:
    from ggufext.header.frequencies import Yarn


class Method(Enum):
    """How the rotation is stretched to the target length."""

    GAMMA = "gamma"
    NTK = "ntk"
    YARN = "yarn"
    LINEAR = "linear"
    LLAMA3 = "llama3"
    LONGROPE = "longrope"
    CONTEXT_LENGTH = "context-length"
    """Only context_length is raised: right for a model that was trained on the target."""


class RunTimeMethod(Enum):
    """A method of the running program, not of the file."""

    DYNAMIC = "dynamic"
    SELF_EXTEND = "self-extend"


@dataclass(frozen=True, slots=True)
class Rotation:
    """What a method does to the rotation of queries and keys.

    Attributes
    ----------
    freq_base : float
        RoPE base θ after the method.
    freq_scale_factor : float
        The factor f that llama.cpp gets as rope.scaling.factor; 1 for methods that only change θ.
    inv_freq : tuple of float
        Inverse frequency of each pair, radians per token, d/2 values.
    attention_factor : float
        What queries and keys are multiplied by.
    """

    freq_base: float
    freq_scale_factor: float
    inv_freq: tuple[float, ...]
    attention_factor: float


def ntk_freq_base(freq_base: float, rotary_dim: int, factor: float) -> float:
    """NTK-aware base θ·f^(d/(d−2)), which stretches the slowest pair exactly f times (bloc97)."""
    return freq_base * math.pow(factor, rotary_dim / (rotary_dim - 2.0))


def check_base(freq_base: float) -> None:
    """Refuse a base that no file can hold.

    Raises
    ------
    PlanError
        ``base_out_of_range``: files hold the base as a 32-bit number.
    """
    if not math.isfinite(freq_base):
        raise PlanError(
            code="base_out_of_range",
            message="the new base is more than a 32-bit number holds; choose yarn or linear, or a "
            "smaller target",
        )


def rebased(freq_base: float, rotary_dim: int) -> Rotation:
    """Another base and nothing else: the form of the gamma and ntk methods in a file."""
    return Rotation(freq_base, 1.0, inverse_frequencies(freq_base, rotary_dim), 1.0)


def yarn_correction_range(
    freq_base: float, rotary_dim: int, training_length: float, keys: Yarn = USUAL_YARN
) -> tuple[float, float]:
    """Pairs between which YaRN changes from leaving alone to interpolating.

    Returns
    -------
    tuple of float
        (low, high): pairs up to low keep their frequency, from high on it is divided by f.

    Source: Peng et al. 2023, appendix A.2; the rounding is llama.cpp's ggml_rope_yarn_corr_dims.
    """

    def pair_with_turns(turns: float) -> float:
        return (
            rotary_dim
            * math.log(training_length / (turns * 2.0 * math.pi))
            / (2.0 * math.log(freq_base))
        )

    low = max(0.0, float(math.floor(pair_with_turns(keys.beta_fast))))
    high = min(rotary_dim - 1.0, float(math.ceil(pair_with_turns(keys.beta_slow))))
    return low, high


def scaled(
    freq_base: float,
    rotary_dim: int,
    factor: float,
    training_length: float,
    *,
    keys: Yarn = USUAL_YARN,
    mix: float,
) -> Rotation:
    """What llama.cpp makes of a factor.

    Parameters
    ----------
    factor : float
        f, > 0.
    training_length : float
        Tokens that YaRN starts from.
    keys : Yarn
    mix : float
        0: every frequency is divided by f (Chen et al. 2023); 1: YaRN, fast pairs as trained, slow
        pairs interpolated, a ramp between, attention sharpened; between: a part of that.

    Source: Peng et al. 2023, equations 22 and 23; ggml's rope_yarn.
    """
    attention = keys.attention_factor(factor, mix)
    low, high = 0.0, 0.0
    if mix:
        low, high = yarn_correction_range(freq_base, rotary_dim, training_length, keys)
    inv_freq = []
    for i, w in enumerate(inverse_frequencies(freq_base, rotary_dim)):
        ramp = min(1.0, max(0.0, (i - low) / max(0.001, high - low)))
        kept = mix * (1.0 - ramp)
        inv_freq.append(w / factor * (1.0 - kept) + w * kept)
    return Rotation(freq_base, factor, tuple(inv_freq), attention)


def linear(freq_base: float, rotary_dim: int, factor: float) -> Rotation:
    """Position interpolation: every frequency divided by the factor (Chen et al. 2023)."""
    return scaled(freq_base, rotary_dim, factor, math.inf, mix=0.0)


def yarn(
    freq_base: float,
    rotary_dim: int,
    factor: float,
    training_length: float,
    keys: Yarn = USUAL_YARN,
) -> Rotation:
    """YaRN with the whole of its mix; the attention factor is 1 + 0.1 ln f by default."""
    return scaled(freq_base, rotary_dim, factor, training_length, keys=keys, mix=1.0)


def llama3_parameters(
    inv_freq: tuple[float, ...], factors: tuple[float, ...]
) -> tuple[float, int] | None:
    """Factor and original length that a tensor of llama3 factors was made from.

    Parameters
    ----------
    inv_freq : tuple of float
        Frequencies that the factors divide, radians per token.
    factors : tuple of float
        As a file holds them.

    Returns
    -------
    (float, int) or None
        f and tokens; None where the factors are no llama3 factors with the usual turns, or where
        no pair lies between the two sides, so that nothing tells the length.
    """
    largest = max(factors)
    lengths = []
    for w, factor in zip(inv_freq, factors, strict=True):
        if 1.0 + 1e-4 < factor < largest * (1.0 - 1e-4):
            kept = (1.0 / factor - 1.0 / largest) / (1.0 - 1.0 / largest)
            turns = LLAMA3_LOW_TURNS + kept * (LLAMA3_HIGH_TURNS - LLAMA3_LOW_TURNS)
            lengths.append(turns * 2.0 * math.pi / w)
    if not lengths:
        return None
    original = round(sorted(lengths)[len(lengths) // 2])
    again = llama3_factors(inv_freq, largest, original)
    if any(abs(a - b) > 1e-3 * b for a, b in zip(again, factors, strict=True)):
        return None
    return largest, original


def as_float32(value: float) -> float:
    """The value that 32 bits hold, so that a plan speaks of what is written."""
    try:
        rounded: float = struct.unpack("<f", struct.pack("<f", value))[0]
    except OverflowError:
        return math.inf
    return rounded
