"""From facts and a target to a plan: what to write, and what to expect of it."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from ggufext.errors import PlanError
from ggufext.header.architectures import Support, unknown_to_llama_cpp
from ggufext.header.factors import factors_in_effect
from ggufext.header.model import TrainLength
from ggufext.planning.cautions import (
    GAMMA_RULE_STATUS,
    context_length_warnings,
    earlier_extension_warnings,
    extension_warnings,
    keeps_short,
    needs_finetuning,
    support_warnings,
)
from ggufext.planning.combining import (
    Combination,
    Factors,
    Form,
    Wish,
    combine,
    factor_key,
    unchanged,
)
from ggufext.planning.edits import (
    local_freq_base,
    metadata_edits,
    moves_nothing,
    neutral_factors,
    tensor_edits,
)
from ggufext.planning.footprint import CacheType, KvCacheBytes, kv_cache_bytes
from ggufext.planning.gamma import d_horizon, gamma_pade, verdict
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
from ggufext.planning.result import (
    LARGEST_TARGET,
    FreqBase,
    Gamma,
    MetadataEdit,
    OutOfDistribution,
    Plan,
    TensorEdit,
)

if TYPE_CHECKING:
    from ggufext.header.model import ModelFacts

__all__ = [
    "GAMMA_RULE_STATUS",
    "Factors",
    "FreqBase",
    "Gamma",
    "MetadataEdit",
    "OutOfDistribution",
    "Plan",
    "TensorEdit",
    "documented_plan",
    "plan",
    "plan_all_methods",
]


#: Above this factor a target is taken for a slip of the keyboard.
ABSURD_FACTOR = 1024.0

#: ω'·L over ω·T above 1 by more than this is an angle that training never showed.
ANGLE_TOLERANCE = 1e-6


def plan(
    facts: ModelFacts,
    *,
    target_length: int,
    method: Method = Method.GAMMA,
    gamma: float | None = None,
    freq_base: float | None = None,
    factors: Factors | None = None,
    keep_short: bool = False,
    allow_lower_base: bool = False,
    force: bool = False,
) -> Plan:
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
    target_length : int
        Context length wanted, tokens, 1 … 2³¹ − 1.
    method : Method
    gamma : float, optional
        Decay exponent wanted at the target, in (−1, 1); only with `Method.GAMMA`. Without it the
        model keeps its native γ, which gives the base θ·L/T.
    freq_base : float, optional
        Base to write, > 1; only with `Method.GAMMA` and `Method.NTK`.
    factors : Factors, optional
        What `Method.LONGROPE` writes; only with it.
    keep_short : bool
        Write the method as long factors, so that contexts up to the training length stay as they
        are.
    allow_lower_base : bool
        Accept a `gamma` or a `freq_base` that lowers the base.
    force : bool
        Accept an architecture that llama.cpp does not know, a factor above 1024, and a method that
        changes sliding-window layers.

    Raises
    ------
    PlanError
        ``unverified_architecture``, ``target_absurd``, ``lowers_base``, ``gamma_out_of_range``,
        ``not_for_method``, ``cannot_combine``, ``local_layers_would_change``,
        ``tensors_not_supported``, ``factors_needed``, ``bad_recipe``, ``base_out_of_range``,
        ``train_base_unknown``.
    """
    if facts.support is Support.UNKNOWN and not force:
        raise PlanError(
            code="unverified_architecture",
            field="general.architecture",
            message=f"{unknown_to_llama_cpp(facts.architecture)}: nobody knows what its keys "
            "would do; --force plans it all the same",
        )
    facts = at_reach(facts)
    check_target(facts, target_length, force=force)
    _check_belongs(method, gamma=gamma, freq_base=freq_base, factors=factors)
    wish = Wish(
        method=method,
        target_length=target_length,
        gamma=gamma,
        freq_base=freq_base,
        factors=factors,
        allow_lower_base=allow_lower_base,
        keep_short=keep_short,
    )
    factor = target_length / facts.train_length
    if factor <= 1.0:
        wish = replace(wish, method=Method.CONTEXT_LENGTH)
    is_extension = wish.method is not Method.CONTEXT_LENGTH
    if is_extension:
        facts = before_extension(facts)
    native, made = _combined(facts, wish)
    swa_base = local_freq_base(facts, made, force=force)
    edits = metadata_edits(facts, made, target_length, freq_base_swa=swa_base)
    left_over = neutral_factors(facts, made.form, made.tensors) if edits else ()
    written = (*made.tensors, *left_over)
    tensors = tensor_edits(facts, written)
    gammas = _gammas(facts, native, wish, made)
    values = dict(facts.factors) | dict(written)
    changes = bool(edits or tensors or not facts.metadata)
    warnings = (*earlier_extension_warnings(facts), *support_warnings(facts))
    if is_extension:
        warnings += extension_warnings(facts, native, wish, made, gammas, changes=changes)
    else:
        warnings += context_length_warnings(facts, factor)
    return Plan(
        architecture=facts.architecture,
        method=wish.method,
        train_length=TrainLength(facts.train_length, facts.train_length_source),
        target_length=target_length,
        factor=factor,
        freq_base=FreqBase(facts.freq_base, made.rotation.freq_base, facts.freq_base_source),
        gamma=gammas,
        d_horizon=d_horizon(facts.freq_base * native.stretch(facts), gammas.effective),
        verdict=verdict(gammas.effective, factor, finetuned=needs_finetuning(wish, made)),
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
        keep_short=keeps_short(native, wish, made),
        original_length=made.original_length,
        scaling_type=made.form.value or facts.scaling.type,
        attention_factor_written=made.attention_factor_written,
        yarn=made.yarn or facts.scaling.yarn,
        long_factors=factors_in_effect(values, is_long=True),
        short_factors=factors_in_effect(values, is_long=False),
        earlier_extension=facts.earlier_extension,
    )


def plan_all_methods(
    facts: ModelFacts, *, target_length: int, keep_short: bool = False, force: bool = False
) -> tuple[Plan, ...]:
    """A plan of every method that this model can take, in the order of `Method`.

    longrope is not among them: it needs factors from outside; nor is context-length, which
    extends nothing. One plan where no method changes anything but context_length.

    Raises
    ------
    PlanError
        When no method can be planned; that of the first.
    """
    if target_length <= at_reach(facts).train_length:
        only = Method.CONTEXT_LENGTH
        return (plan(facts, target_length=target_length, method=only, force=force),)
    plans: list[Plan] = []
    refusals: list[PlanError] = []
    for method in [Method.GAMMA] if moves_nothing(facts) else Method:
        if method in {Method.LONGROPE, Method.CONTEXT_LENGTH}:
            continue
        try:
            made = plan(
                facts,
                target_length=target_length,
                method=method,
                keep_short=keep_short,
                force=force,
            )
            plans.append(made)
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
    try:
        return plan(as_documented, target_length=said.yarn_length, method=Method.YARN, force=force)
    except PlanError:
        return None


def check_target(facts: ModelFacts, target_length: int, *, force: bool) -> None:
    """Refuse a target that cannot be meant: ``target_absurd``."""
    if not 1 <= target_length <= LARGEST_TARGET:
        raise PlanError(
            code="target_absurd",
            message=f"target of {target_length:,} tokens; llama.cpp counts positions up to "
            f"{LARGEST_TARGET:,}",
        )
    factor = target_length / facts.train_length
    if factor > ABSURD_FACTOR and not force:
        raise PlanError(
            code="target_absurd",
            message=f"target of {target_length:,} tokens is {factor:,.0f} times the training "
            f"length of {facts.train_length:,} ({facts.train_length_source}); no method reaches "
            "that far; --force plans it all the same",
        )


def _check_belongs(
    method: Method, *, gamma: float | None, freq_base: float | None, factors: Factors | None
) -> None:
    """Refuse what another method than the chosen one would use."""
    if gamma is not None and method is not Method.GAMMA:
        raise PlanError(
            code="not_for_method",
            message=f"a wanted γ belongs to method gamma, not to {method.value}",
        )
    if freq_base is not None and method not in {Method.GAMMA, Method.NTK}:
        raise PlanError(
            code="not_for_method",
            message=f"a wanted base belongs to methods gamma and ntk, not to {method.value}",
        )
    if factors is not None and method is not Method.LONGROPE:
        raise PlanError(
            code="not_for_method",
            message=f"factors from a file belong to method longrope, not to {method.value}",
        )


def _gammas(facts: ModelFacts, native: NativeScaling, wish: Wish, made: Combination) -> Gamma:
    target, factor = wish.target_length, wish.target_length / facts.train_length
    base = facts.freq_base * native.stretch(facts)
    if made.form is Form.UNCHANGED:
        effective = gamma_pade(base, target)
    elif wish.gamma is not None:
        effective = wish.gamma
    elif wish.freq_base is not None:
        effective = gamma_pade(base * wish.freq_base / facts.freq_base, target)
    elif wish.method is Method.LINEAR:
        effective = gamma_pade(base, target / factor)
    elif wish.method is Method.YARN and made.form is Form.YARN:
        unscaled = facts.freq_base if native.kind is NativeKind.YARN else base
        effective = gamma_pade(unscaled * made.rotation.freq_scale_factor, target)
    elif wish.method is Method.LONGROPE:
        longest = stretch(facts.inv_freq, made.rotation.inv_freq)
        effective = gamma_pade(facts.freq_base * longest, target)
    else:
        effective = gamma_pade(base * factor, target)
    return Gamma(
        native=gamma_pade(base, facts.train_length),
        unscaled=gamma_pade(base, target),
        after=gamma_pade(made.rotation.freq_base, target),
        effective=effective,
    )


def _combined(facts: ModelFacts, wish: Wish) -> tuple[NativeScaling, Combination]:
    """What a model rotates with, and what it will; raises as `combine`."""
    if moves_nothing(facts):
        native = NativeScaling(NativeKind.NONE, facts.inv_freq, 1.0, None)
        return native, unchanged(facts, wish.target_length)
    native = native_scaling(facts)
    if wish.method is Method.CONTEXT_LENGTH:
        return native, unchanged(facts, wish.target_length)
    return native, combine(facts, native, wish)


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
        pairs=sum(excess > 1.0 + ANGLE_TOLERANCE for excess in excesses),
        max_excess=max(excesses, default=0.0),
    )
