"""Extensions that no file can hold: llama.cpp does them when it runs, by options of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ggufext.errors import PlanError
from ggufext.header.facts import TrainLength
from ggufext.planning import methods
from ggufext.planning.methods import RunTimeMethod
from ggufext.planning.native import NativeKind, at_reach, native_scaling, refuse
from ggufext.planning.plan import extension_factor

if TYPE_CHECKING:
    from ggufext.header.facts import ModelFacts

#: Neighbours whose exact distance Self-Extend keeps: the default of llama.cpp's --grp-attn-w.
_WINDOW = 512


@dataclass(frozen=True, slots=True)
class DynamicBase:
    """Base of Dynamic NTK at one length: a row of its table.

    Attributes
    ----------
    length : int
        Context length, tokens.
    freq_base : float
        RoPE base θ, > 1.
    options : str
        Of the programs of llama.cpp.
    """

    length: int
    freq_base: float
    options: str


@dataclass(frozen=True, slots=True)
class DynamicPlan:
    """Dynamic NTK: another base for each length, chosen when llama.cpp starts.

    Attributes
    ----------
    method : RunTimeMethod
    train_length : TrainLength
    target_length : int
        Context length wanted, tokens.
    factor : float
        Target over training length.
    rows : tuple of DynamicBase
        From the training length by doubling to the target.
    """

    method: RunTimeMethod
    train_length: TrainLength
    target_length: int
    factor: float
    rows: tuple[DynamicBase, ...]


@dataclass(frozen=True, slots=True)
class SelfExtendPlan:
    """Self-Extend: far positions share numbers in groups; near ones stay exact.

    Attributes
    ----------
    method : RunTimeMethod
    train_length : TrainLength
    target_length : int
        Context length wanted, tokens.
    group : int
        Far tokens that share a position.
    window : int
        Neighbours with exact positions, tokens: a multiple of the group.
    largest_position : int
        Largest position that is reached at the target, within the training length, tokens.
    options : str
        Of llama-completion.
    """

    method: RunTimeMethod
    train_length: TrainLength
    target_length: int
    group: int
    window: int
    largest_position: int
    options: str


def dynamic(facts: ModelFacts, *, target_length: int, force: bool = False) -> DynamicPlan:
    """The table of Dynamic NTK: θ·((f·ℓ/T) − (f − 1))^(d/(d−2)) for a length ℓ ≥ T.

    Parameters
    ----------
    facts : ModelFacts
    target_length : int
        Tokens, above the training length.
    force : bool
        Plan for a target beyond any reason too.

    Raises
    ------
    PlanError
        ``target_not_longer``, ``target_absurd``, ``base_out_of_range``; ``cannot_combine`` for a
        model with scaling of its own beside rope_freqs, or with 2 rotated dimensions.

    Notes
    -----
    Source: the dynamic rope_scaling of transformers (modeling_rope_utils.py).
    """
    facts = at_reach(facts)
    factor = _longer(facts, target_length, force=force)
    native = native_scaling(facts)
    if native.kind not in {NativeKind.NONE, NativeKind.ROPE_FREQS}:
        refuse(facts, "another base would bend the scaling it was trained with")
    dim, train = facts.rotary_dim, facts.train_length
    if dim < 4:
        raise PlanError(
            code="cannot_combine",
            message=f"dynamic NTK needs at least 4 rotated dimensions; this model has {dim}",
        )
    lengths = [train]
    while lengths[-1] * 2 < target_length:
        lengths.append(lengths[-1] * 2)
    rows = []
    for length in (*lengths, target_length):
        stretch = factor * length / train - (factor - 1.0)
        base = methods.as_float32(methods.ntk_freq_base(facts.freq_base, dim, stretch))
        methods.check_base(base)  # one that no file could hold, llama.cpp could not take
        rows.append(DynamicBase(length, base, f"--ctx-size {length} --rope-freq-base {base:.9g}"))
    trained = TrainLength(train, facts.train_length_source)
    return DynamicPlan(RunTimeMethod.DYNAMIC, trained, target_length, factor, tuple(rows))


def self_extend(facts: ModelFacts, *, target_length: int, force: bool = False) -> SelfExtendPlan:
    """Smallest group size with which Self-Extend reaches a target (Jin et al. 2024).

    Parameters
    ----------
    facts : ModelFacts
    target_length : int
        Tokens, above the training length.
    force : bool
        Plan for a target beyond any reason too.

    Raises
    ------
    PlanError
        ``target_not_longer``; ``target_absurd``, also where no group size reaches the target.
    """
    facts = at_reach(facts)
    _longer(facts, target_length, force=force)
    train = facts.train_length
    for group in range(2, train):
        window = max(group, min(_WINDOW, train // 2) // group * group)
        largest = window + -(-(target_length - window) // group)
        if window < train and largest <= train:
            break
    else:
        raise PlanError(
            code="target_absurd",
            message=f"no group size brings {target_length:,} tokens into {train:,} positions",
        )
    options = f"--ctx-size {target_length} --grp-attn-n {group} --grp-attn-w {window}"
    trained = TrainLength(train, facts.train_length_source)
    return SelfExtendPlan(
        RunTimeMethod.SELF_EXTEND, trained, target_length, group, window, largest, options
    )


def _longer(facts: ModelFacts, target_length: int, *, force: bool) -> float:
    factor = extension_factor(facts, target_length, force=force)
    if target_length <= facts.train_length:
        raise PlanError(
            code="target_not_longer",
            message=f"target of {target_length:,} tokens is not above the training length of "
            f"{facts.train_length:,} ({facts.train_length_source}): nothing to extend",
        )
    return factor
