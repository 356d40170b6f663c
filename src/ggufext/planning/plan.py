"""From facts and a target to a plan: what to write, and what to expect of it."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from ggufext.errors import PlanError
from ggufext.header.architectures import Support, unknown_to_llama_cpp
from ggufext.header.facts import TrainLength
from ggufext.header.frequencies import factors_in_effect
from ggufext.planning.cautions import (
    context_length_warnings,
    earlier_extension_warnings,
    extension_warnings,
    keeps_short,
    needs_finetuning,
    support_warnings,
)
from ggufext.planning.combining import Combination, Extension, Form, combine, factor_key, unchanged
from ggufext.planning.edits import (
    local_freq_base,
    metadata_edits,
    moves_nothing,
    neutral_factors,
    tensor_edits,
)
from ggufext.planning.footprint import LARGEST_TARGET, CacheType, KvCacheBytes, kv_cache_bytes
from ggufext.planning.gamma import d_horizon, gamma_pade, verdict
from ggufext.planning.measured import measured, recommended
from ggufext.planning.methods import Method
from ggufext.planning.native import (
    NativeKind,
    NativeScaling,
    at_reach,
    before_extension,
    native_scaling,
    stretch,
    turns,
)
from ggufext.planning.request import PlanRequest
from ggufext.planning.result import FreqBase, Gamma, OutOfDistribution, Plan

if TYPE_CHECKING:
    from ggufext.header.facts import ModelFacts

#: Above this factor a target is taken for a slip of the keyboard.
_ABSURD_FACTOR = 1024.0

#: Methods that need something from outside, or extend nothing.
_NOT_COMPARED = frozenset({Method.LONGROPE, Method.CONTEXT_LENGTH})

#: ω'·L over ω·T above 1 by more than this is an angle that training never showed.
_ANGLE_TOLERANCE = 1e-6


def plan(facts: ModelFacts, request: PlanRequest) -> Plan:
    """Plan one method for one model.

    A target that is not longer than what the model was trained on, or than its own scaling
    reaches, gives a plan of `Method.CONTEXT_LENGTH`, whatever the method asked for, with the
    verdict NO-EXTENSION-NEEDED: it raises context_length where that is too low and writes nothing
    else. Scaling that the model brings from its training is extended in kind: yarn by yarn, linear
    by linear or a base above it, longrope by new long factors, rope_freqs made again or left below
    a base or another scaling. A file that was extended before is planned from the model before it.

    Parameters
    ----------
    facts : ModelFacts
        Read with the request's `train_length` and `train_freq_base`.
    request : PlanRequest

    Raises
    ------
    PlanError
        ``unverified_architecture``, ``target_absurd``, ``lowers_base``, ``gamma_out_of_range``,
        ``not_for_method``, ``cannot_combine``, ``local_layers_would_change``,
        ``tensors_not_supported``, ``factors_needed``, ``bad_recipe``, ``base_out_of_range``,
        ``train_base_unknown``, ``rope_keys_not_read``.
    """
    if facts.support is Support.UNKNOWN and not request.force:
        raise PlanError(
            code="unverified_architecture",
            field="general.architecture",
            message=f"{unknown_to_llama_cpp(facts.architecture)}: nobody knows what its keys "
            "would do; `plan` and `rewrite` plan it all the same with --force",
        )
    facts = at_reach(facts)
    factor = extension_factor(facts, request.target_length, force=request.force)
    _check_belongs(request)
    if factor <= 1.0:
        request = replace(request, method=Method.CONTEXT_LENGTH, recipe=None)
    is_extension = request.method is not Method.CONTEXT_LENGTH
    varied = _is_varied(request)
    if is_extension:
        facts = before_extension(facts)
    wanted = Extension(facts, _native(facts), request, factor)
    native, target_length = wanted.native, request.target_length
    made = _combined(wanted)
    swa_base = local_freq_base(facts, made, force=request.force)
    edits = metadata_edits(facts, made, target_length, freq_base_swa=swa_base)
    left_over = neutral_factors(facts, made.form, made.tensors) if edits else ()
    written = (*made.tensors, *left_over)
    tensors = tensor_edits(facts, written)
    gammas = _gammas(wanted, made)
    values = dict(facts.factors) | dict(written)
    changes = bool(edits or tensors or not facts.metadata)
    warnings = (*earlier_extension_warnings(facts), *support_warnings(facts))
    if is_extension:
        warnings += extension_warnings(wanted, made, gammas, changes=changes)
    else:
        warnings += context_length_warnings(facts, factor)
    return Plan(
        architecture=facts.architecture,
        method=request.method,
        train_length=TrainLength(facts.train_length, facts.train_length_source),
        target_length=target_length,
        factor=factor,
        freq_base=FreqBase(facts.freq_base, made.rotation.freq_base, facts.freq_base_source),
        gamma=gammas,
        d_horizon=d_horizon(facts.freq_base * native.stretch(facts), gammas.effective),
        verdict=verdict(gammas.effective, factor, finetuned=needs_finetuning(request, made)),
        out_of_distribution=_out_of_distribution(
            facts, native.inv_freq, made.rotation.inv_freq, target_length
        ),
        kv_cache_bytes=_cache_bytes(facts, target_length),
        inv_freq=made.rotation.inv_freq,
        attention_factor=made.rotation.attention_factor,
        freq_scale_factor=made.rotation.freq_scale_factor,
        factor_key=factor_key(facts, made),
        edits=edits,
        warnings=warnings,
        tensor_edits=tensors,
        keep_short=keeps_short(wanted, made),
        original_length=made.original_length,
        scaling_type=made.form.value or facts.scaling.type,
        attention_factor_written=made.attention_factor_written,
        yarn=made.yarn or facts.scaling.yarn,
        long_factors=factors_in_effect(values, is_long=True),
        short_factors=factors_in_effect(values, is_long=False),
        earlier_extension=facts.earlier_extension,
        measured=None if varied else measured(facts, request.method, factor),
        recommended=None if varied or not is_extension else recommended(facts, factor),
    )


def _is_varied(request: PlanRequest) -> bool:
    """Whether more is asked for than a method by itself."""
    return request.keep_short or request.gamma is not None or request.recipe is not None


def plan_all_methods(facts: ModelFacts, request: PlanRequest) -> tuple[Plan, ...]:
    """A plan of every method that this model can take, in the order of `Method`.

    The method of the request does not count. longrope is not among them: it needs factors from
    outside; nor is context-length, which extends nothing. One plan where no method changes
    anything but context_length.

    Raises
    ------
    PlanError
        When no method can be planned; that of the first.
    """
    methods = [method for method in Method if method not in _NOT_COMPARED]
    if request.target_length <= at_reach(facts).train_length:
        methods = [Method.CONTEXT_LENGTH]
    elif moves_nothing(facts):
        methods = [Method.GAMMA]
    plans: list[Plan] = []
    refusals: list[PlanError] = []
    for method in methods:
        try:
            plans.append(plan(facts, replace(request, method=method)))
        except PlanError as error:
            refusals.append(error)
    if not plans:
        raise refusals[0]
    return tuple(plans)


def documented_plan(facts: ModelFacts, *, force: bool = False) -> Plan | None:
    """The scaling that the model's publisher documents, to the length that it reaches.

    None where no scaling is documented, or none that this file could take.
    """
    said = facts.published
    if said is None or said.yarn_length is None:
        return None
    as_documented = replace(facts, train_length=said.train_length, train_length_source=said.source)
    request = PlanRequest(target_length=said.yarn_length, method=Method.YARN, force=force)
    try:
        return plan(as_documented, request)
    except PlanError:
        return None


def extension_factor(facts: ModelFacts, target_length: int, *, force: bool) -> float:
    """F = L/T: target over training length; of a target that cannot be meant ``target_absurd``."""
    if not 1 <= target_length <= LARGEST_TARGET:
        raise PlanError(
            code="target_absurd",
            message=f"target of {target_length:,} tokens; llama.cpp counts positions up to "
            f"{LARGEST_TARGET:,}",
        )
    factor = target_length / facts.train_length
    if factor > _ABSURD_FACTOR and not force:
        raise PlanError(
            code="target_absurd",
            message=f"target of {target_length:,} tokens is {factor:,.0f} times the training "
            f"length of {facts.train_length:,} ({facts.train_length_source}); no method reaches "
            "that far; `plan` and `rewrite` plan it all the same with --force",
        )
    return factor


def _check_belongs(request: PlanRequest) -> None:
    """Refuse what another method than the chosen one would use."""
    method = request.method
    if request.gamma is not None and method is not Method.GAMMA:
        raise PlanError(
            code="not_for_method",
            message=f"a wanted γ belongs to method gamma, not to {method.value}",
        )
    if request.freq_base is not None and method not in {Method.GAMMA, Method.NTK}:
        raise PlanError(
            code="not_for_method",
            message=f"a wanted base belongs to methods gamma and ntk, not to {method.value}",
        )
    if request.yarn is not None and method is not Method.YARN:
        raise PlanError(
            code="not_for_method",
            message=f"betas of a recipe belong to method yarn, not to {method.value}",
        )
    if request.factors is not None and method is not Method.LONGROPE:
        raise PlanError(
            code="not_for_method",
            message=f"factors from a file belong to method longrope, not to {method.value}",
        )


def _gammas(wanted: Extension, made: Combination) -> Gamma:
    facts, native, request = wanted.facts, wanted.native, wanted.request
    target = request.target_length
    base = facts.freq_base * native.stretch(facts)
    if made.form is Form.UNCHANGED:
        effective = gamma_pade(base, target)
    elif request.gamma is not None:
        effective = request.gamma
    elif request.freq_base is not None:
        effective = gamma_pade(base * request.freq_base / facts.freq_base, target)
    elif request.method is Method.LINEAR:
        effective = gamma_pade(base, facts.train_length)
    elif request.method is Method.YARN and made.form is Form.YARN:
        unscaled = facts.freq_base if native.kind is NativeKind.YARN else base
        effective = gamma_pade(unscaled * made.rotation.freq_scale_factor, target)
    elif request.method is Method.LONGROPE:
        longest = stretch(facts.inv_freq, made.rotation.inv_freq)
        effective = gamma_pade(facts.freq_base * longest, target)
    else:
        effective = gamma_pade(base * wanted.factor, target)
    return Gamma(
        native=gamma_pade(base, facts.train_length),
        unscaled=gamma_pade(base, target),
        after=gamma_pade(made.rotation.freq_base, target),
        effective=effective,
    )


def _native(facts: ModelFacts) -> NativeScaling:
    """What a model rotates with; nothing to scale where no layer moves."""
    if moves_nothing(facts):
        return NativeScaling(NativeKind.NONE, facts.inv_freq, 1.0, None)
    return native_scaling(facts)


def _combined(wanted: Extension) -> Combination:
    """What a model will rotate with; raises as `combine`."""
    if moves_nothing(wanted.facts) or wanted.request.method is Method.CONTEXT_LENGTH:
        return unchanged(wanted.facts, wanted.request.target_length)
    return combine(wanted)


def _cache_bytes(facts: ModelFacts, length: int) -> KvCacheBytes:
    return KvCacheBytes(*(kv_cache_bytes(facts.layers, length, kind) for kind in CacheType))


def _out_of_distribution(
    facts: ModelFacts, before: tuple[float, ...], after: tuple[float, ...], target_length: int
) -> OutOfDistribution:
    if moves_nothing(facts):
        return OutOfDistribution(0, 0.0)
    excesses = [
        new * target_length / (old * facts.train_length)
        for old, new in zip(before, after, strict=True)
        if turns(old) and old * facts.train_length < 2.0 * math.pi
    ]
    return OutOfDistribution(
        pairs=sum(excess > 1.0 + _ANGLE_TOLERANCE for excess in excesses),
        max_excess=max(excesses, default=0.0),
    )
