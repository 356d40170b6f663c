"""A method on top of the scaling that a model brings: the new rotation and its form in a file."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING

from ggufext.errors import PlanError
from ggufext.header.architectures import FactorSupport
from ggufext.header.frequencies import (
    ROPE_FACTORS_LONG,
    ROPE_FACTORS_SHORT,
    ROPE_FREQS,
    inverse_frequencies,
    llama3_factors,
    longrope_attention_factor,
)
from ggufext.header.rope_keys import FREQ_BASE
from ggufext.planning import methods
from ggufext.planning.gamma import freq_base_for_gamma, gamma_pade
from ggufext.planning.methods import Method, Rotation, as_float32
from ggufext.planning.native import (
    NativeKind,
    NativeScaling,
    divided,
    refuse,
    rotation_in_effect,
    takes_long_factors,
    tensors_taken,
)
from ggufext.planning.yarn_recipe import with_attention, yarn_keys

if TYPE_CHECKING:
    from ggufext.header.facts import ModelFacts
    from ggufext.header.frequencies import Yarn
    from ggufext.planning.request import Factors, PlanRequest


class Form(Enum):
    """How a rotation is written: what rope.scaling.type becomes."""

    UNCHANGED = None
    """As it is."""
    BASE = "none"
    """A base, and scaling switched off."""
    LINEAR = "linear"
    YARN = "yarn"
    LONG = "longrope"
    """Long factors, for contexts above the original length only."""


@dataclass(frozen=True, slots=True)
class Extension:
    """What every method works on: a model, its own scaling, and what is asked for.

    Attributes
    ----------
    facts : ModelFacts
        Of the model before any extension.
    native : NativeScaling
    request : PlanRequest
    factor : float
        f = L/T: target over training length.
    """

    facts: ModelFacts
    native: NativeScaling
    request: PlanRequest
    factor: float


@dataclass(frozen=True, slots=True)
class Combination:
    """A rotation and its form in a file.

    Attributes
    ----------
    rotation : Rotation
        In effect at the target.
    form : Form
    original_length : int
        rope.scaling.original_context_length, tokens.
    tensors : tuple of (str, tuple of float)
        Factor tensors to write, by name.
    attention_factor_written : float
        rope.scaling.attn_factor.
    attention_dropped : bool
        Whether the method has an attention factor that this form cannot hold.
    yarn : Yarn or None
        What the keys of YaRN become; None: they stay.
    """

    rotation: Rotation
    form: Form
    original_length: int
    tensors: tuple[tuple[str, tuple[float, ...]], ...] = ()
    attention_factor_written: float = 1.0
    attention_dropped: bool = False
    yarn: Yarn | None = None


def unchanged(facts: ModelFacts, target_length: int) -> Combination:
    """The rotation of the file as it is, for a target that needs no other; raises as `combine`."""
    return Combination(
        rotation=rotation_in_effect(facts, target_length),
        form=Form.UNCHANGED,
        original_length=facts.longest_short_context,
        attention_factor_written=facts.scaling.attention_factor,
    )


def combine(wanted: Extension) -> Combination:
    """The rotation of a method on top of a model's own scaling.

    Raises
    ------
    PlanError
        ``cannot_combine``, ``tensors_not_supported``, ``rope_keys_not_read``, ``factors_needed``,
        ``bad_recipe``, ``lowers_base``, ``gamma_out_of_range``, ``base_out_of_range``.
    """
    facts, native, request = wanted.facts, wanted.native, wanted.request
    if native.kind is NativeKind.LONGROPE:
        return _new_long_factors(wanted)
    if request.method is Method.LONGROPE:
        _check_kind(facts, native, "factors for long contexts replace its scaling at every length")
        return _factors_from_outside(wanted)
    if not request.keep_short:
        return _plain(wanted)
    _check_keeps_short(facts, native)
    return _packed(facts, _plain(wanted))


def factor_key(facts: ModelFacts, made: Combination) -> float:
    """rope.scaling.factor as the file holds it afterwards; 1 where it holds none."""
    # Local layers of some architectures know a factor under type none too, and keep it then.
    is_stale = made.form is Form.LONG or facts.scaling.type != "none"
    if made.form in {Form.LINEAR, Form.YARN} or (made.form is not Form.UNCHANGED and is_stale):
        return made.rotation.freq_scale_factor
    return facts.scaling.factor


def _check_kind(facts: ModelFacts, native: NativeScaling, why: str) -> None:
    if native.kind is not NativeKind.NONE:
        refuse(facts, f"{why}; choose {_possible(native.kind)}")


def _check_keeps_short(facts: ModelFacts, native: NativeScaling) -> None:
    """Refuse --keep-short, whatever the method, where no long factors can hold it."""
    if native.kind is not NativeKind.NONE:
        refuse(
            facts,
            "--keep-short would put long factors beside it, and llama.cpp takes one kind; leave "
            f"out --keep-short; {_possible(native.kind)} extends this model",
        )
    if not takes_long_factors(facts):
        raise PlanError(
            code="tensors_not_supported",
            field=ROPE_FACTORS_LONG,
            message=f"llama.cpp does not take this tensor for {facts.architecture}, so no method "
            "can keep short contexts apart in its files; leave out --keep-short, choose the "
            "smallest target that serves, and keep the original file for short contexts",
        )


def _possible(kind: NativeKind) -> str:
    """The methods that go on top of a native scaling."""
    names = {
        NativeKind.ROPE_FREQS: "gamma, ntk, linear, yarn or llama3",
        NativeKind.LINEAR: "linear, gamma or ntk",
    }
    return f"--method {names.get(kind, kind.value)}"


def _plain(wanted: Extension) -> Combination:
    facts, native, request = wanted.facts, wanted.native, wanted.request
    kind, method = native.kind, request.method
    if kind is NativeKind.LINEAR and method in {Method.YARN, Method.LLAMA3}:
        refuse(
            facts,
            f"{method.value} would take the trained interpolation from some pairs, or stand beside "
            f"it, which no training did; choose {_possible(kind)}, which keep it",
        )
    if kind is NativeKind.YARN and method is not Method.YARN:
        refuse(
            facts,
            f"{method.value} would take the trained YaRN frequencies away, whose ramp depends on "
            f"base and original length; choose {_possible(kind)}, which raises the factor",
        )
    if method is Method.LLAMA3:
        return _llama3(wanted)
    form, factor, base = _written(wanted)
    keys, original = yarn_keys(facts, native, request), original_length(facts, native)
    mix = keys.mix(form.value or "")
    if factor != 1.0 and bool(mix) != (form is Form.YARN):
        # The file has a mix of its own (grok): it would act under every type.
        mix = 1.0 if form is Form.YARN else 0.0
        keys = replace(keys, ext_factor=mix)
    rotation = methods.scaled(base, facts.rotary_dim, factor, original, keys=keys, mix=mix)
    rotation, written = with_attention(facts, request.yarn, rotation)
    return Combination(
        rotation=_divided_by(rotation, facts, native),
        form=form,
        original_length=original,
        attention_factor_written=written,
        yarn=keys,
    )


def _written(wanted: Extension) -> tuple[Form, float, float]:
    """Form, factor and base of a method that needs no tensor."""
    facts, native, request = wanted.facts, wanted.native, wanted.request
    if request.method is Method.LINEAR:
        return Form.LINEAR, _stretched(wanted), facts.freq_base
    if request.method is Method.YARN:
        return Form.YARN, _stretched(wanted), facts.freq_base
    base = as_float32(facts.freq_base * _base_ratio(wanted))
    methods.check_base(base)
    if native.kind is NativeKind.LINEAR:
        return Form.LINEAR, facts.scaling.factor, base
    return Form.BASE, 1.0, base


def _stretched(wanted: Extension) -> float:
    """The factor to write: the target over the original length where the model was scaled."""
    facts, native, request = wanted.facts, wanted.native, wanted.request
    factor = wanted.factor
    if native.kind not in {NativeKind.LINEAR, NativeKind.YARN}:
        return as_float32(factor)
    trained = facts.scaling.factor
    if native.original_length is None:
        return as_float32(trained * factor)
    return as_float32(max(trained, request.target_length / native.original_length))


def original_length(facts: ModelFacts, native: NativeScaling) -> int:
    """rope.scaling.original_context_length of an extension, tokens."""
    if facts.original_length_acts:
        return facts.longest_short_context
    if native.kind is NativeKind.LINEAR:
        return native.original_length or round(facts.train_length / facts.scaling.factor)
    if native.kind is NativeKind.YARN:
        return native.original_length or facts.context_length
    if native.kind is NativeKind.LONGROPE:
        return min(facts.longest_short_context, facts.train_length)
    return facts.train_length


def _divided_by(rotation: Rotation, facts: ModelFacts, native: NativeScaling) -> Rotation:
    """The rotation with the model's rope_freqs, which stay in the file."""
    if native.kind is not NativeKind.ROPE_FREQS:
        return rotation
    factors = dict(facts.factors)[ROPE_FREQS]
    return replace(rotation, inv_freq=divided(rotation.inv_freq, factors))


def _base_ratio(wanted: Extension) -> float:
    """By what gamma and ntk multiply the base.

    Raises
    ------
    PlanError
        ``lowers_base``, ``gamma_out_of_range``, ``base_out_of_range``, ``cannot_combine``.
    """
    facts, native, request = wanted.facts, wanted.native, wanted.request
    factor, dim = wanted.factor, facts.rotary_dim
    if request.freq_base is not None:
        if not (math.isfinite(as_float32(request.freq_base)) and request.freq_base > 1.0):
            raise PlanError(
                code="base_out_of_range",
                message=f"base of {request.freq_base:g}; it must be a finite number above 1",
            )
        _check_not_lower(wanted, facts.freq_base, request.freq_base)
        return request.freq_base / facts.freq_base
    if request.method is Method.NTK:
        if dim < 4:
            raise PlanError(
                code="cannot_combine",
                message=f"NTK-aware scaling needs at least 4 rotated dimensions; this model has "
                f"{dim}; choose gamma, linear or yarn",
            )
        return methods.ntk_freq_base(1.0, dim, factor)
    if request.gamma is None:
        return factor
    before = facts.freq_base * native.stretch(facts)
    return _base_for_wanted_gamma(wanted, before, request.gamma) / before


def _base_for_wanted_gamma(wanted: Extension, before: float, gamma: float) -> float:
    request = wanted.request
    if not -1.0 < gamma < 1.0:
        raise PlanError(
            code="gamma_out_of_range",
            message=f"γ of {gamma:g}; it must lie between -1 and 1, both excluded",
        )
    after = freq_base_for_gamma(gamma, request.target_length)
    if after <= 1.0 or not math.isfinite(as_float32(after)):
        raise PlanError(
            code="gamma_out_of_range",
            message=f"γ of {gamma:g} at {request.target_length:,} tokens means base {after:g}, "
            "which no model can rotate with",
        )
    _check_not_lower(wanted, before, after)
    return after


def _check_not_lower(wanted: Extension, before: float, after: float) -> None:
    facts, request = wanted.facts, wanted.request
    if after >= before or request.allow_lower_base:
        return
    found = gamma_pade(after, request.target_length)
    native = gamma_pade(before, facts.train_length)
    smallest = gamma_pade(before, request.target_length)
    raise PlanError(
        code="lowers_base",
        field=f"{facts.architecture}.{FREQ_BASE}",
        message=f"γ of {found:g} at {request.target_length:,} tokens lowers the base from "
        f"{before:,.6g} to {after:,.6g}; the native γ is {native:.4f}, the smallest "
        f"that does not lower the base is {smallest:.4f}; --allow-lower-base accepts it",
    )


def _llama3(wanted: Extension) -> Combination:
    """llama3 factors, made again from the model's own where it has some."""
    facts, native, request = wanted.facts, wanted.native, wanted.request
    if not request.keep_short:
        _check_factor_support(facts, ROPE_FREQS)
    factor, original = wanted.factor, facts.train_length
    if native.kind is NativeKind.ROPE_FREQS:
        found = methods.llama3_parameters(facts.inv_freq, dict(facts.factors)[ROPE_FREQS])
        if found is None:
            refuse(
                facts,
                "these factors are not those of llama3 with turns 1 and 4, so they cannot be made "
                "again for another length; choose --method gamma, ntk, linear or yarn",
            )
        factor, original = factor * found[0], found[1]
    factors = tuple(map(as_float32, llama3_factors(facts.inv_freq, factor, original)))
    rotation = Rotation(facts.freq_base, 1.0, divided(facts.inv_freq, factors), 1.0)
    return Combination(
        rotation=rotation,
        form=Form.BASE,
        original_length=facts.train_length,
        tensors=((ROPE_FREQS, factors),),
    )


def _packed(facts: ModelFacts, made: Combination) -> Combination:
    """The same frequencies as long factors; the base stays for short contexts."""
    long = _factors_to(facts, made.rotation.inv_freq)
    return Combination(
        rotation=Rotation(facts.freq_base, 1.0, divided(facts.inv_freq, long), 1.0),
        form=Form.LONG,
        original_length=facts.train_length,
        tensors=((ROPE_FACTORS_LONG, long),),
        # attn_factor acts at every length, so it would change short contexts.
        attention_dropped=made.rotation.attention_factor != 1.0,
    )


def _factors_from_outside(wanted: Extension) -> Combination:
    facts, native, request = wanted.facts, wanted.native, wanted.request
    factors = _checked_factors(wanted)
    _check_factor_support(facts, ROPE_FACTORS_LONG)
    long = tuple(map(as_float32, factors.long))
    tensors = [(ROPE_FACTORS_LONG, long)]
    attention = factors.attention_factor
    if attention is None:
        attention = longrope_attention_factor(wanted.factor, facts.train_length)
    if factors.short is not None and not request.keep_short:
        tensors.append((ROPE_FACTORS_SHORT, tuple(map(as_float32, factors.short))))
    written = 1.0 if request.keep_short else as_float32(attention)
    return Combination(
        rotation=Rotation(facts.freq_base, 1.0, divided(facts.inv_freq, long), written),
        form=Form.LONG,
        original_length=original_length(facts, native),
        tensors=tuple(tensors),
        attention_factor_written=written,
        attention_dropped=request.keep_short and attention != 1.0,
    )


def _new_long_factors(wanted: Extension) -> Combination:
    """The method on a longrope model's own frequencies, as new long factors; short ones stay."""
    facts, native, request = wanted.facts, wanted.native, wanted.request
    attention, tensors = native.attention_factor, []
    original = original_length(facts, native)
    if request.method is Method.LONGROPE:
        factors = _checked_factors(wanted)
        long = tuple(map(as_float32, factors.long))
        if factors.short is not None and not request.keep_short:
            tensors.append((ROPE_FACTORS_SHORT, tuple(map(as_float32, factors.short))))
        if factors.attention_factor is not None and not request.keep_short:
            attention = as_float32(factors.attention_factor)
    else:
        long = _factors_to(facts, _beyond(wanted))
    if original == 0 and request.keep_short:
        # The long factors act at every length today: they are what short contexts know.
        known = dict(facts.factors).get(ROPE_FACTORS_LONG, (1.0,) * len(long))
        tensors.append((ROPE_FACTORS_SHORT, known))
    if original == 0 and tensors:
        original = facts.train_length
    return Combination(
        rotation=Rotation(facts.freq_base, 1.0, divided(facts.inv_freq, long), attention),
        form=Form.LONG,
        original_length=original,
        tensors=((ROPE_FACTORS_LONG, long), *tensors),
        attention_factor_written=attention,
    )


def _beyond(wanted: Extension) -> tuple[float, ...]:
    """A method applied to frequencies that no base describes."""
    facts, native, request = wanted.facts, wanted.native, wanted.request
    factor = wanted.factor
    if request.method is Method.LINEAR:
        return tuple(w / factor for w in native.inv_freq)
    if request.method is Method.LLAMA3:
        factors = llama3_factors(native.inv_freq, factor, facts.train_length)
        return divided(native.inv_freq, factors)
    if request.method is Method.YARN:
        refuse(
            facts,
            "YaRN's ramp is defined by a base, which these frequencies do not have; choose "
            "--method gamma, ntk, linear, llama3 or longrope, which make new long factors",
        )
    ratio = _base_ratio(wanted)
    slower = inverse_frequencies(ratio, facts.rotary_dim)
    return tuple(w * s for w, s in zip(native.inv_freq, slower, strict=True))


def _factors_to(facts: ModelFacts, inv_freq: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(as_float32(w / v) for w, v in zip(facts.inv_freq, inv_freq, strict=True))


def _checked_factors(wanted: Extension) -> Factors:
    facts, request = wanted.facts, wanted.request
    factors, pairs = request.factors, len(facts.inv_freq)
    if factors is None:
        raise PlanError(
            code="factors_needed",
            message="longrope has no formula: its factors are searched for each model; give them "
            "with --recipe FILE.json",
        )
    for name, values in (("long", factors.long), ("short", factors.short)):
        if values is not None and len(values) != pairs:
            raise PlanError(
                code="bad_recipe",
                field=f"plan.{name}",
                message=f"has {len(values)} factors; this model rotates {pairs} pairs a head",
            )
    return factors


def _check_factor_support(facts: ModelFacts, tensor: str) -> None:
    """Refuse a tensor that llama.cpp does not take for the architecture.

    Raises
    ------
    PlanError
        ``tensors_not_supported``.
    """
    if tensor in tensors_taken(facts.factor_support):
        return
    others = {
        FactorSupport.ROPE_FREQS: "; --method llama3 works, through rope_freqs.weight",
        FactorSupport.LONG_SHORT: "; --method longrope and --keep-short work, through "
        "rope_factors_long.weight",
    }.get(facts.factor_support, "; choose --method gamma, ntk, yarn or linear")
    raise PlanError(
        code="tensors_not_supported",
        field=tensor,
        message=f"llama.cpp does not take this tensor for {facts.architecture}{others}",
    )
