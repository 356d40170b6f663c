"""RoPE scaling that a model brings from its training, and its frequencies with that scaling."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, NoReturn

from ggufext.errors import PlanError
from ggufext.header import rope_keys
from ggufext.header.architectures import FactorSupport
from ggufext.header.frequencies import (
    ROPE_FACTORS_LONG,
    ROPE_FACTORS_SHORT,
    ROPE_FREQS,
    factors_in_effect,
)
from ggufext.header.rope_keys import FREQ_BASE
from ggufext.planning import methods
from ggufext.planning.methods import llama3_parameters

if TYPE_CHECKING:
    from ggufext.header.facts import ModelFacts
    from ggufext.planning.methods import Rotation


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
        Length before that scaling, tokens; None where nothing says.
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
    if starts_at_training(facts):
        return NativeScaling(NativeKind.NONE, facts.inv_freq, 1.0, None)
    kind = _kind(facts)
    rotation = rotation_in_effect(facts, facts.train_length)
    original = facts.scaling.original_context_length or None
    return NativeScaling(kind, rotation.inv_freq, rotation.attention_factor, original)


def starts_at_training(facts: ModelFacts) -> bool:
    """Whether the file's factor is an extension of a training length that others than it name.

    It is one where that length is the original length, or where the file names none and declares
    a longer context.
    """
    scaling, length = facts.scaling, facts.train_length
    if facts.train_length_is_the_files or scaling.factor_in_effect <= 1.0:
        return False
    if scaling.factor_tensors or scaling.attention_factor != 1.0 or scaling.type == "longrope":
        return False
    original = scaling.original_context_length
    return length == original if original else length < facts.context_length


def rotation_in_effect(facts: ModelFacts, length: int) -> Rotation:
    """How llama.cpp rotates in a context of a length, tokens, with the file as it is.

    Raises
    ------
    PlanError
        ``cannot_combine`` for factor tensors that it does not take.
    """
    scaling, base = facts.scaling, facts.freq_base
    made = methods.scaled(
        base,
        facts.rotary_dim,
        scaling.factor_in_effect,
        facts.yarn_length,
        keys=scaling.yarn,
        mix=scaling.mix,
    )
    _check_tensors(facts)
    is_long = length > facts.longest_short_context
    chosen = factors_in_effect(dict(facts.factors), is_long=is_long)
    return replace(
        made,
        inv_freq=made.inv_freq if chosen is None else divided(made.inv_freq, chosen),
        attention_factor=made.attention_factor * scaling.attention_factor,
    )


def at_reach(facts: ModelFacts) -> ModelFacts:
    """The facts with the length up to which the file's own scaling serves as training length.

    Many files raise a factor, or bring factors for long contexts, and leave context_length.
    """
    scaling, key = facts.scaling, rope_keys.ORIGINAL_LENGTH
    original = scaling.original_context_length or 0
    if ROPE_FACTORS_LONG in scaling.factor_tensors:
        reached = original
    elif scaling.factor_in_effect > 1.0 and not scaling.factor_tensors:
        reached, key = round(original * scaling.factor), f"{key} × {scaling.factor:g}"
    else:
        return facts
    if not facts.train_length_is_the_files or reached <= facts.train_length:
        return facts
    source = f"{facts.architecture}.{key}"
    return replace(facts, train_length=reached, train_length_source=source)


def _kind(facts: ModelFacts) -> NativeKind:
    """The kind of scaling, where it is one that an extension can start from."""
    scaling = facts.scaling
    scaled = scaling.factor_in_effect != 1.0
    if scaling.factor_tensors:
        if scaled:
            refuse(facts, "llama.cpp applies both, which no training did")
        if ROPE_FREQS not in scaling.factor_tensors:
            return NativeKind.LONGROPE
        if scaling.attention_factor != 1.0:
            refuse(facts, "nothing says which scaling the attention factor belongs to")
        return NativeKind.ROPE_FREQS
    if scaling.attention_factor != 1.0:
        refuse(facts, "nothing says which scaling it belongs to")
    if not scaled:
        return NativeKind.NONE
    if scaling.type == "longrope":
        refuse(facts, "longrope without factor tensors scales by the factor alone")
    return NativeKind.YARN if scaling.mix else NativeKind.LINEAR


def _check_tensors(facts: ModelFacts) -> None:
    scaling, values = facts.scaling, dict(facts.factors)
    if set(values) != set(scaling.factor_tensors):
        refuse(facts, "the values of the tensors were not read; plan from the file itself")
    if any(len(factors) != len(facts.inv_freq) for factors in values.values()):
        refuse(facts, f"the tensors do not have one value for each of {len(facts.inv_freq)} pairs")
    if not set(values) <= tensors_taken(facts.factor_support, scaling.type):
        refuse(facts, f"llama.cpp does not rotate {facts.architecture} with these tensors")


def tensors_taken(support: FactorSupport, scaling_type: str | None = None) -> frozenset[str]:
    """Factor tensors that llama.cpp rotates with under a scaling type; None: under any."""
    freqs, long_short = frozenset({ROPE_FREQS}), frozenset({ROPE_FACTORS_LONG, ROPE_FACTORS_SHORT})
    by_type = {None: freqs | long_short, "longrope": long_short}
    return {
        FactorSupport.NONE: frozenset[str](),
        FactorSupport.ROPE_FREQS: freqs,
        FactorSupport.LONG_SHORT: long_short,
        FactorSupport.BY_TYPE: by_type.get(scaling_type, freqs),
    }[support]


def takes_long_factors(facts: ModelFacts) -> bool:
    """Whether llama.cpp rotates the architecture with rope_factors_long."""
    return ROPE_FACTORS_LONG in tensors_taken(facts.factor_support)


def can_keep_short(facts: ModelFacts, native: NativeScaling) -> bool:
    """Whether long factors alone can hold an extension of this model."""
    return takes_long_factors(facts) and native.kind is NativeKind.NONE


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
    if scaling.factor_in_effect != 1.0:
        found.append(f"{scaling.type} scaling by {scaling.factor:g}")
    if scaling.attention_factor != 1.0:
        found.append(f"attention factor {scaling.attention_factor:g}")
    found.extend(f"tensor {name}" for name in scaling.factor_tensors)
    origin = "as part of its training"
    if scaling.spreads_positions:
        origin = "(below 1: positions are multiplied, so it is probably a mistake of the file)"
    raise PlanError(
        code="cannot_combine",
        field=f"{facts.architecture}.{rope_keys.SCALING_TYPE}",
        message=f"the model comes with {', '.join(found)} {origin}: {why}",
    )


#: llama3 factors tell their original length up to the rounding of 32-bit numbers.
_LENGTH_TOLERANCE = 0.01


def before_extension(facts: ModelFacts) -> ModelFacts:
    """Facts to extend from: those given, or without the llama3 factors of an earlier extension.

    Raises
    ------
    PlanError
        ``train_base_unknown``: an earlier extension may have changed the base.
    """
    earlier = facts.earlier_extension
    if earlier is None or earlier.method is not None:
        return facts
    factors = dict(facts.factors)
    if ROPE_FREQS in factors:
        made = llama3_parameters(facts.inv_freq, factors[ROPE_FREQS])
        before = earlier.train_length
        if made is not None and abs(made[1] - before) <= _LENGTH_TOLERANCE * before:
            # Models trained with such factors have them for a length below their training length.
            return replace(
                facts,
                scaling=replace(facts.scaling, factor_tensors=()),
                factors=(),
                left_over=facts.factors,
                earlier_extension=replace(earlier, freq_base_known=True),
            )
    if earlier.freq_base_known:
        return facts
    said = facts.published
    usual = (
        f"; files of {said.family} say {said.freq_base:,.10g}" if said and said.freq_base else ""
    )
    raise PlanError(
        code="train_base_unknown",
        field=f"{facts.architecture}.{FREQ_BASE}",
        message=f"is {facts.freq_base:,.10g} now, but the file was extended before (from "
        f"{earlier.train_length:,} to {earlier.target_length:,} tokens, without a record), so the "
        "base of the training is not known; say it with --train-freq-base (rope_theta in the "
        f"original's config.json{usual}), or --train-length {earlier.target_length} if the model "
        "was trained as the file stands",
    )
