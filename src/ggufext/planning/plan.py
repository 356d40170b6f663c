"""From facts and a target to a plan: what to write, and what to expect of it."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ggufext.errors import ModelWarning, PlanError
from ggufext.header.architectures import Support
from ggufext.header.header import ValueType
from ggufext.header.model import TrainLength
from ggufext.planning import methods
from ggufext.planning.gamma import (
    FACTOR_NEEDS_FINETUNE,
    Verdict,
    d_horizon,
    freq_base_for_gamma,
    gamma_pade,
    verdict,
)
from ggufext.planning.kv_cache import CacheType, KvCacheBytes, kv_cache_bytes
from ggufext.planning.local_layers import local_freq_base, moves_nothing, peculiarities
from ggufext.planning.methods import Method, Rotation

if TYPE_CHECKING:
    from ggufext.header.header import Value
    from ggufext.header.model import ModelFacts

#: llama.cpp keeps context lengths and positions in 32-bit integers.
LARGEST_TARGET = 2**31 - 1

#: Above this factor a target is taken for a slip of the keyboard.
ABSURD_FACTOR = 1024.0

#: ω'·L over ω·T above 1 by more than this is an angle that training never showed.
ANGLE_TOLERANCE = 1e-6

GAMMA_RULE_STATUS = (
    "the γ rule is derived, not validated by its author: take its verdict as an expectation and "
    "measure this model"
)


@dataclass(frozen=True, slots=True)
class MetadataEdit:
    """One key to write.

    Attributes
    ----------
    key : str
    type : ValueType
        GGUF type to write; keys that exist keep theirs.
    before : Value or None
        None: the key is new.
    after : Value
    """

    key: str
    type: ValueType
    before: Value | None
    after: Value


@dataclass(frozen=True, slots=True)
class FreqBase:
    """RoPE base θ before and after."""

    before: float
    after: float


@dataclass(frozen=True, slots=True)
class Gamma:
    """Decay exponents γ by the Padé formula.

    Attributes
    ----------
    native : float
        At the training length with the native base.
    unscaled : float
        At the target length with the native base: what happens without an extension.
    after : float
        At the target length with the base that is written.
    effective : float
        At the target length with the whole scaling, as tafagent counts it: linear shortens the
        length by f, ntk and yarn count as base θ·f.
    """

    native: float
    unscaled: float
    after: float
    effective: float


@dataclass(frozen=True, slots=True)
class OutOfDistribution:
    """Angles at the target that training never showed. A description, not a verdict.

    Attributes
    ----------
    pairs : int
        Pairs that made no full turn in training and turn further at the target than they ever did.
    max_excess : float
        Largest angle at the target over the largest in training among the pairs that made no
        full turn; 0 where there is none.
    """

    pairs: int
    max_excess: float


@dataclass(frozen=True, slots=True)
class Plan:
    """What one method would write into a model, and what to expect of it.

    Attributes
    ----------
    architecture : str
    method : Method
    train_length : TrainLength
    target_length : int
        Tokens.
    factor : float
        Target over training length.
    freq_base : FreqBase
    gamma : Gamma
    d_horizon : float or None
        Tokens: `gamma.d_horizon` of the native base and the effective γ. With the native γ kept
        it equals the training length by construction; it says something only with another γ.
    verdict : Verdict
    out_of_distribution : OutOfDistribution
    kv_cache_bytes : KvCacheBytes
    inv_freq : tuple of float
        Inverse frequency of each pair after the plan, radians per token.
    attention_factor : float
        What queries and keys are multiplied by.
    freq_scale_factor : float
        rope.scaling.factor that takes effect; 1 for gamma and ntk.
    edits : tuple of MetadataEdit
        Empty where nothing has to change.
    warnings : tuple of ModelWarning
    """

    architecture: str
    method: Method
    train_length: TrainLength
    target_length: int
    factor: float
    freq_base: FreqBase
    gamma: Gamma
    d_horizon: float | None
    verdict: Verdict
    out_of_distribution: OutOfDistribution
    kv_cache_bytes: KvCacheBytes
    inv_freq: tuple[float, ...]
    attention_factor: float
    freq_scale_factor: float
    edits: tuple[MetadataEdit, ...]
    warnings: tuple[ModelWarning, ...]


def plan(
    facts: ModelFacts,
    *,
    target_length: int,
    method: Method = Method.GAMMA,
    gamma: float | None = None,
    allow_lower_base: bool = False,
    force: bool = False,
) -> Plan:
    """Plan one method for one model.

    A target that is not longer than the training length gives a plan without edits and the
    verdict NO-EXTENSION-NEEDED.

    Parameters
    ----------
    facts : ModelFacts
    target_length : int
        Context length wanted, tokens, 1 … 2³¹ − 1.
    method : Method
    gamma : float, optional
        Decay exponent wanted at the target, in (−1, 1); only with `Method.GAMMA`. Without it the
        model keeps its native γ, which gives the base θ·L/T.
    allow_lower_base : bool
        Accept a `gamma` that lowers the base.
    force : bool
        Accept a factor above 1024, and a method that changes sliding-window layers.

    Raises
    ------
    PlanError
        ``target_absurd``, ``lowers_base``, ``gamma_out_of_range``, ``cannot_combine``,
        ``local_layers_would_change``.
    """
    _check_target(facts, target_length, force=force)
    if gamma is not None and method is not Method.GAMMA:
        raise PlanError(
            code="gamma_needs_gamma_method",
            message=f"a wanted γ belongs to method gamma, not to {method.value}",
        )
    factor = target_length / facts.train_length
    extends = factor > 1.0
    swa_base: float | None = None
    if extends and not moves_nothing(facts):
        _check_native_scaling(facts)
        rotation = _rotation(facts, method, factor, target_length, gamma, allow_lower_base)
        swa_base = local_freq_base(facts, rotation, force=force)
    else:
        rotation = methods.rebased(facts.freq_base, facts.rotary_dim)

    gammas = _gammas(facts, method, target_length, rotation.freq_base, gamma)
    judged = verdict(gammas.effective, factor)
    # Facts without keys come from a configuration, which has nothing of GGUF to edit.
    written = extends and bool(facts.metadata)
    edits = _edits(facts, method, rotation, target_length, swa_base) if written else ()
    return Plan(
        architecture=facts.architecture,
        method=method,
        train_length=TrainLength(facts.train_length, facts.train_length_source),
        target_length=target_length,
        factor=factor,
        freq_base=FreqBase(facts.freq_base, rotation.freq_base),
        gamma=gammas,
        d_horizon=d_horizon(facts.freq_base, gammas.effective),
        verdict=judged,
        out_of_distribution=_out_of_distribution(facts, rotation, target_length),
        kv_cache_bytes=KvCacheBytes(
            *(kv_cache_bytes(facts.layers, target_length, kind) for kind in CacheType)
        ),
        inv_freq=rotation.inv_freq,
        attention_factor=rotation.attention_factor,
        freq_scale_factor=rotation.freq_scale_factor,
        edits=edits,
        warnings=_warnings(facts, method, factor, judged, edits),
    )


def plan_all_methods(
    facts: ModelFacts, *, target_length: int, force: bool = False
) -> tuple[Plan, ...]:
    """A plan of every method that this model can take, in the order of `Method`.

    One plan where no method changes anything but context_length.

    Raises
    ------
    PlanError
        When no method can be planned; that of the first.
    """
    plans: list[Plan] = []
    refusals: list[PlanError] = []
    for method in [Method.GAMMA] if moves_nothing(facts) else Method:
        try:
            plans.append(plan(facts, target_length=target_length, method=method, force=force))
        except PlanError as error:
            refusals.append(error)
    if not plans:
        raise refusals[0]
    return tuple(plans)


def _check_target(facts: ModelFacts, target_length: int, *, force: bool) -> None:
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


def _check_native_scaling(facts: ModelFacts) -> None:
    scaling = facts.scaling
    if not scaling.in_effect:
        return
    found = []
    if scaling.type != "none" and scaling.factor != 1.0:
        found.append(f"{scaling.type} scaling by {scaling.factor:g}")
    if scaling.attention_factor != 1.0:
        found.append(f"attention factor {scaling.attention_factor:g}")
    found.extend(f"tensor {name}" for name in scaling.factor_tensors)
    raise PlanError(
        code="cannot_combine",
        field=f"{facts.architecture}.rope.scaling.type",
        message=f"the model comes with {', '.join(found)} as part of its training; combining it "
        "with another extension is not supported yet; start from a file without it",
    )


def _rotation(
    facts: ModelFacts,
    method: Method,
    factor: float,
    target_length: int,
    gamma: float | None,
    allow_lower_base: bool,
) -> Rotation:
    base, dim = facts.freq_base, facts.rotary_dim
    if method is Method.LINEAR:
        return methods.linear(base, dim, _as_float32(factor))
    if method is Method.YARN:
        return methods.yarn(base, dim, _as_float32(factor), facts.train_length)
    if method is Method.NTK:
        if dim < 4:
            raise PlanError(
                code="cannot_combine",
                message=f"NTK-aware scaling needs at least 4 rotated dimensions; this model has "
                f"{dim}; choose gamma, linear or yarn",
            )
        return methods.rebased(_as_float32(methods.ntk_freq_base(base, dim, factor)), dim)
    after = base * factor
    if gamma is not None:
        after = _base_for_wanted_gamma(facts, gamma, target_length, allow_lower_base)
    return methods.rebased(_as_float32(after), dim)


def _base_for_wanted_gamma(
    facts: ModelFacts, gamma: float, target_length: int, allow_lower_base: bool
) -> float:
    if not -1.0 < gamma < 1.0:
        raise PlanError(
            code="gamma_out_of_range",
            message=f"γ of {gamma:g}; it must lie between -1 and 1, both excluded",
        )
    after = freq_base_for_gamma(gamma, target_length)
    if after <= 1.0 or not math.isfinite(_as_float32(after)):
        raise PlanError(
            code="gamma_out_of_range",
            message=f"γ of {gamma:g} at {target_length:,} tokens means base {after:g}, which no "
            "model can rotate with",
        )
    if after < facts.freq_base and not allow_lower_base:
        native = gamma_pade(facts.freq_base, facts.train_length)
        smallest = gamma_pade(facts.freq_base, target_length)
        raise PlanError(
            code="lowers_base",
            field=f"{facts.architecture}.rope.freq_base",
            message=f"γ of {gamma:g} at {target_length:,} tokens lowers the base from "
            f"{facts.freq_base:,.6g} to {after:,.6g}; the native γ is {native:.4f}, the smallest "
            f"that does not lower the base is {smallest:.4f}; --allow-lower-base accepts it",
        )
    return after


def _gammas(
    facts: ModelFacts,
    method: Method,
    target_length: int,
    base_after: float,
    wanted: float | None,
) -> Gamma:
    base, factor = facts.freq_base, target_length / facts.train_length
    unscaled = gamma_pade(base, target_length)
    if factor <= 1.0:
        effective = unscaled
    elif wanted is not None:
        effective = wanted
    elif method is Method.LINEAR:
        effective = gamma_pade(base, target_length / factor)
    else:
        effective = gamma_pade(base * factor, target_length)
    return Gamma(
        native=gamma_pade(base, facts.train_length),
        unscaled=unscaled,
        after=gamma_pade(base_after, target_length),
        effective=effective,
    )


def _edits(
    facts: ModelFacts,
    method: Method,
    rotation: Rotation,
    target_length: int,
    swa_base: float | None,
) -> tuple[MetadataEdit, ...]:
    today = dict(facts.metadata)
    prefix = f"{facts.architecture}."
    edits: list[MetadataEdit] = []

    def write(suffix: str, kind: ValueType, after: Value) -> None:
        before = today[prefix + suffix]
        if before != after:
            edits.append(MetadataEdit(prefix + suffix, kind, before, after))

    write("context_length", ValueType.UINT32, target_length)
    if moves_nothing(facts):
        pass
    elif method in {Method.GAMMA, Method.NTK}:
        in_file = _as_float32(rotation.freq_base / facts.freq_base_multiplier)
        write("rope.freq_base", ValueType.FLOAT32, in_file)
        if swa_base is not None:
            write("rope.freq_base_swa", ValueType.FLOAT32, swa_base)
        write("rope.scaling.type", ValueType.STRING, "none")
        if facts.has_scaling_factor:
            # Type none does not switch a factor off for the local layers of every architecture.
            write("rope.scaling.factor", ValueType.FLOAT32, 1.0)
    else:
        write("rope.scaling.type", ValueType.STRING, method.value)
        write("rope.scaling.factor", ValueType.FLOAT32, rotation.freq_scale_factor)
    # Without this key llama.cpp takes context_length for the original length, which is raised.
    write("rope.scaling.original_context_length", ValueType.UINT32, facts.train_length)
    return tuple(edits)


def _out_of_distribution(
    facts: ModelFacts, rotation: Rotation, target_length: int
) -> OutOfDistribution:
    if moves_nothing(facts):
        return OutOfDistribution(0, 0.0)
    excesses = [
        after * target_length / (native * facts.train_length)
        for native, after in zip(facts.inv_freq, rotation.inv_freq, strict=True)
        if native * facts.train_length < 2.0 * math.pi
    ]
    return OutOfDistribution(
        pairs=sum(excess > 1.0 + ANGLE_TOLERANCE for excess in excesses),
        max_excess=max(excesses, default=0.0),
    )


def _warnings(
    facts: ModelFacts,
    method: Method,
    factor: float,
    judged: Verdict,
    edits: tuple[MetadataEdit, ...],
) -> tuple[ModelWarning, ...]:
    found: list[ModelWarning] = []

    def warn(code: str, message: str) -> None:
        found.append(ModelWarning(code, message))

    if facts.support is not Support.VERIFIED:
        warn(
            "unverified_architecture",
            f"what llama.cpp does with the RoPE keys of {facts.architecture} was not verified "
            "by experiment; rewrite needs --force",
        )
    if judged is Verdict.NO_EXTENSION_NEEDED:
        return tuple(found)
    if facts.metadata and not edits:
        warn("changes_nothing", "the file already holds these values: nothing would be written")
    found.extend(peculiarities(facts, method))
    warn("gamma_rule_not_validated", GAMMA_RULE_STATUS)
    if factor > FACTOR_NEEDS_FINETUNE:
        warn(
            "factor_above_4",
            f"factor {factor:g} is above 4: without fine-tuning expect losses; choose the "
            "smallest target that serves",
        )
    if method in {Method.LINEAR, Method.YARN}:
        warn(
            "short_texts",
            f"static {method.value} scaling acts on short texts too and costs them quality; "
            "choose the smallest target that serves",
        )
    if method is Method.LINEAR:
        warn(
            "linear_needs_finetuning",
            "linear interpolation usually needs fine-tuning at the new length; without it "
            "retrieval tends to fail at every length",
        )
    return tuple(found)


def _as_float32(value: float) -> float:
    """The value that a 32-bit key holds, so that the plan speaks of what is written."""
    try:
        rounded: float = struct.unpack("<f", struct.pack("<f", value))[0]
    except OverflowError:
        return math.inf
    return rounded
