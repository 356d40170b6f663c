"""The frequencies of each extension method, from the native ones.

Symbols: T training length, L target length, f = L/T, θ RoPE base, d rotated dimensions,
ω_i = θ^(−2i/d) the inverse frequency of pair i in radians per token.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

from ggufext.errors import PlanError

#: Turns within the training length above which YaRN leaves a pair alone, and below which it
#: interpolates the pair fully (Peng et al. 2023, section 3.2; llama.cpp's fixed defaults).
YARN_BETA_FAST = 32.0
YARN_BETA_SLOW = 1.0


class Method(Enum):
    """How the rotation is stretched to the target length."""

    GAMMA = "gamma"
    NTK = "ntk"
    YARN = "yarn"
    LINEAR = "linear"


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


def linear(freq_base: float, rotary_dim: int, factor: float) -> Rotation:
    """Position interpolation: every frequency divided by the factor (Chen et al. 2023)."""
    native = inverse_frequencies(freq_base, rotary_dim)
    return Rotation(freq_base, factor, tuple(w / factor for w in native), 1.0)


def ntk_freq_base(freq_base: float, rotary_dim: int, factor: float) -> float:
    """NTK-aware base θ·f^(d/(d−2)), which stretches the slowest pair exactly f times (bloc97)."""
    return freq_base * math.pow(factor, rotary_dim / (rotary_dim - 2.0))


def rebased(freq_base: float, rotary_dim: int) -> Rotation:
    """Another base and nothing else: the form of the gamma and ntk methods in a file.

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
    return Rotation(freq_base, 1.0, inverse_frequencies(freq_base, rotary_dim), 1.0)


def yarn_correction_range(
    freq_base: float, rotary_dim: int, training_length: float
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

    low = max(0.0, float(math.floor(pair_with_turns(YARN_BETA_FAST))))
    high = min(rotary_dim - 1.0, float(math.ceil(pair_with_turns(YARN_BETA_SLOW))))
    return low, high


def yarn(freq_base: float, rotary_dim: int, factor: float, training_length: float) -> Rotation:
    """YaRN: fast pairs as trained, slow pairs interpolated, a ramp between, attention sharpened.

    The attention factor is 1 + 0.1 ln f.

    Source: Peng et al. 2023, equations 22 and 23.
    """
    low, high = yarn_correction_range(freq_base, rotary_dim, training_length)
    inv_freq = []
    for i, w in enumerate(inverse_frequencies(freq_base, rotary_dim)):
        ramp = min(1.0, max(0.0, (i - low) / max(0.001, high - low)))
        inv_freq.append(w / factor * ramp + w * (1.0 - ramp))
    return Rotation(freq_base, factor, tuple(inv_freq), 1.0 + 0.1 * math.log(factor))
