"""RoPE scaling that a model brings from its training, and its frequencies with that scaling."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, NoReturn

from ggufext.errors import PlanError
from ggufext.header.architectures import FactorSupport
from ggufext.header.factors import (
    ROPE_FACTORS_LONG,
    ROPE_FACTORS_SHORT,
    ROPE_FREQS,
    factors_in_effect,
)
from ggufext.planning import methods

if TYPE_CHECKING:
    from ggufext.header.model import ModelFacts


#: Radians per token below which a pair turns in no context: factors of 1e30 switch it off (gemma4).
_SLOWEST_TURN = 1e-20


class NativeKind(Enum):
    """How a model was scaled when it was trained."""

    NONE = "none"
    LINEAR = "linear"
    YARN = "yarn"
    ROPE_FREQS = "rope_freqs"
    LONGROPE = "longrope"


@dataclass(frozen=True, slots=True)
class NativeScaling:
    """What an extension starts from.

    Attributes
    ----------
    kind : NativeKind
    inv_freq : tuple of float
        Frequencies in effect at the training length, radians per token.
    attention_factor : float
        What queries and keys are multiplied by.
    original_length : int or None
        Length before that scaling, tokens; None where the file does not say.
    """

    kind: NativeKind
    inv_freq: tuple[float, ...]
    attention_factor: float
    original_length: int | None

    def stretch(self, facts: ModelFacts) -> float:
        """How many times slower pairs turn than the base alone makes them, at most; 1 or more."""
        return stretch(facts.inv_freq, self.inv_freq)


def native_scaling(facts: ModelFacts) -> NativeScaling:
    """The scaling that takes effect in a file, as llama.cpp rotates with it.

    Parameters
    ----------
    facts : ModelFacts
        Of the file as converted.

    Raises
    ------
    PlanError
        ``cannot_combine``: more than one kind at once, or factors that llama.cpp does not take.
    """
    scaling, base, dim = facts.scaling, facts.freq_base, facts.rotary_dim
    scaled = scaling.type != "none" and scaling.factor != 1.0
    original = scaling.original_context_length or None
    if scaling.factor_tensors:
        if scaled:
            refuse(facts, "llama.cpp applies both, which no training did")
        return _with_tensors(facts, original)
    if scaling.attention_factor != 1.0:
        refuse(facts, "nothing says which scaling it belongs to")
    if not scaled:
        return NativeScaling(NativeKind.NONE, facts.inv_freq, 1.0, original)
    if scaling.type == "linear":
        linear = methods.linear(base, dim, scaling.factor)
        return NativeScaling(NativeKind.LINEAR, linear.inv_freq, 1.0, original)
    if scaling.type == "longrope":
        refuse(facts, "longrope without factor tensors scales by the factor alone")
    # llama.cpp takes context_length where no original length is written.
    yarn = methods.yarn(base, dim, scaling.factor, original or facts.train_length)
    return NativeScaling(NativeKind.YARN, yarn.inv_freq, yarn.attention_factor, original)


def _with_tensors(facts: ModelFacts, original: int | None) -> NativeScaling:
    scaling, values = facts.scaling, dict(facts.factors)
    if set(values) != set(scaling.factor_tensors):
        refuse(facts, "the values of the tensors were not read; plan from the file itself")
    if any(len(factors) != len(facts.inv_freq) for factors in values.values()):
        refuse(facts, f"the tensors do not have one value for each of {len(facts.inv_freq)} pairs")
    longrope = scaling.type == "longrope"
    taken = {
        FactorSupport.NONE: set(),
        FactorSupport.ROPE_FREQS: {ROPE_FREQS},
        FactorSupport.LONG_SHORT: {ROPE_FACTORS_LONG, ROPE_FACTORS_SHORT},
        FactorSupport.BY_TYPE: {ROPE_FACTORS_LONG, ROPE_FACTORS_SHORT}
        if longrope
        else {ROPE_FREQS},
    }[facts.factor_support]
    if not set(values) <= taken:
        refuse(facts, f"llama.cpp does not rotate {facts.architecture} with these tensors")
    if ROPE_FREQS in values:
        if scaling.attention_factor != 1.0:
            refuse(facts, "nothing says which scaling the attention factor belongs to")
        return NativeScaling(
            NativeKind.ROPE_FREQS, divided(facts.inv_freq, values[ROPE_FREQS]), 1.0, original
        )
    # Long factors act in contexts above the original length.
    is_long = facts.train_length > (original or facts.train_length)
    chosen = factors_in_effect(values, is_long=is_long)
    inv_freq = facts.inv_freq if chosen is None else divided(facts.inv_freq, chosen)
    return NativeScaling(NativeKind.LONGROPE, inv_freq, scaling.attention_factor, original)


def turns(frequency: float) -> bool:
    """Whether a pair rotates at all; a frequency in radians per token."""
    return frequency > _SLOWEST_TURN


def stretch(before: tuple[float, ...], after: tuple[float, ...]) -> float:
    """How many times slower pairs turn, at most, of those that turn; 1 or more."""
    return max(1.0, *(w / v if turns(v) else 1.0 for w, v in zip(before, after, strict=True)))


def divided(inv_freq: tuple[float, ...], factors: tuple[float, ...]) -> tuple[float, ...]:
    """Frequencies divided by factors, pair by pair."""
    return tuple(w / factor for w, factor in zip(inv_freq, factors, strict=True))


def refuse(facts: ModelFacts, why: str) -> NoReturn:
    """Say what scaling the model brings, and why the request does not go together with it.

    Raises
    ------
    PlanError
        ``cannot_combine``.
    """
    scaling, found = facts.scaling, []
    if scaling.type != "none" and scaling.factor != 1.0:
        found.append(f"{scaling.type} scaling by {scaling.factor:g}")
    if scaling.attention_factor != 1.0:
        found.append(f"attention factor {scaling.attention_factor:g}")
    found.extend(f"tensor {name}" for name in scaling.factor_tensors)
    origin = "as part of its training"
    if scaling.spreads_positions:
        origin = "(below 1: positions are multiplied, so it is probably a mistake of the file)"
    raise PlanError(
        code="cannot_combine",
        field=f"{facts.architecture}.rope.scaling.type",
        message=f"the model comes with {', '.join(found)} {origin}: {why}",
    )
