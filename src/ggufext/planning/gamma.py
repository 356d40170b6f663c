"""γ, the decay exponent of attention, and the γ rule built on it.

Mean attention weight falls with key distance Δ as A(Δ) ∝ Δ^(−γ). The formulas are those of the
book chapter on long-context extension and of its tool tafagent (js/yarn_planner.js,
js/gamma_check.js). The rule is derived; docs/gamma-rule.md tells what was measured of it.
"""

from __future__ import annotations

import math
from enum import Enum

_SQRT2 = math.sqrt(2.0)

#: At or below this γ a model no longer tells near from far.
GAMMA_DEGRADED = 0.2
#: From this γ on attention decays about as in the models that work.
_GAMMA_HEALTHY = 0.6
#: Above this factor an extension without fine-tuning is not expected to hold.
FACTOR_NEEDS_FINETUNE = 4.0


class Verdict(Enum):
    """What the γ rule expects of an extension. An expectation, not a measurement."""

    HEALTHY = "HEALTHY"
    USABLE_WITH_CARE = "USABLE-WITH-CARE"
    NEEDS_FINETUNE = "NEEDS-FINETUNE"
    DEGRADES = "DEGRADES"
    NO_EXTENSION_NEEDED = "NO-EXTENSION-NEEDED"


def gamma_pade(freq_base: float, length: float) -> float:
    """Attention decay exponent γ that a RoPE base predicts at a context length.

    Parameters
    ----------
    freq_base : float
        RoPE base θ, > 0.
    length : float
        Context length in tokens, ≥ 0.

    Returns
    -------
    float
        γ in (−1, 1]; 1 at length 0, falling as the length grows.
    """
    x = length * _SQRT2
    return (2.0 * freq_base - x) / (2.0 * freq_base + x)


def freq_base_for_gamma(gamma: float, length: float) -> float:
    """RoPE base θ at which γ has a wanted value at a context length (the γ rule).

    The inverse of `gamma_pade` in its first argument.

    Parameters
    ----------
    gamma : float
        Wanted decay exponent, in (−1, 1).
    length : float
        Context length in tokens, > 0.

    Raises
    ------
    ValueError
        If γ or the length is outside its range.
    """
    if not -1.0 < gamma < 1.0:
        raise ValueError(f"gamma must lie between -1 and 1, both excluded; got {gamma!r}")
    if not length > 0:
        raise ValueError(f"length must be positive; got {length!r}")
    return length * _SQRT2 * (1.0 + gamma) / (2.0 * (1.0 - gamma))


def d_horizon(freq_base: float, gamma: float) -> float | None:
    """Distance in tokens up to which attention with decay γ still resolves keys.

    With γ = `gamma_pade` (θ, T) the result is T by construction, so it says something only for a
    measured γ, or for a γ and a θ that do not belong together (today's θ, γ at the target).

    Parameters
    ----------
    freq_base : float
        RoPE base θ, > 0.
    gamma : float
        Decay exponent.

    Returns
    -------
    float or None
        Tokens; None where the formula has no meaning (γ ≤ 0 or γ ≥ 1).
    """
    if not 0.0 < gamma < 1.0:
        return None
    return freq_base * (1.0 - gamma) * _SQRT2 / (1.0 + gamma)


def verdict(gamma_effective: float, factor: float, *, finetuned: bool = False) -> Verdict:
    """What the γ rule expects of an extension.

    Parameters
    ----------
    gamma_effective : float
        Decay exponent at the target under the planned scaling.
    factor : float
        Target length over training length, > 0; 1 or less needs no extension.
    finetuned : bool
        Whether the method works after fine-tuning only, whatever γ says.
    """
    if factor <= 1.0:
        return Verdict.NO_EXTENSION_NEEDED
    if gamma_effective <= GAMMA_DEGRADED:
        return Verdict.DEGRADES
    if factor > FACTOR_NEEDS_FINETUNE or finetuned:
        return Verdict.NEEDS_FINETUNE
    if gamma_effective >= _GAMMA_HEALTHY:
        return Verdict.HEALTHY
    return Verdict.USABLE_WITH_CARE
