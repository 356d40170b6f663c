"""What a comparison found: the dataclasses whose fields are the JSON of ``ggufext compare``."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ggufext.audit.findings.results import Comparison, Interval, LengthAccuracy
    from ggufext.audit.run.measure import Run
    from ggufext.comparison.request import CompareRequest
    from ggufext.errors import ModelWarning
    from ggufext.planning.evidence import Evidence
    from ggufext.planning.methods import Method


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean with its 95 % interval.

    Attributes
    ----------
    mean : float
        In the unit of what was measured.
    interval : (float, float) or None
        At 95 %, in the same unit; None where there is too little to draw one from.
    """

    mean: float
    interval: Interval | None


@dataclass(frozen=True, slots=True)
class LossBin:
    """Loss of the tokens at some positions, nats a token.

    Attributes
    ----------
    start, end : int
        Positions in a text, [start, end), tokens.
    tokens : int
        Tokens that were scored, in all texts.
    loss : Estimate
        Nats a token.
    against_native : Estimate or None
        Difference from native on the same tokens, above 0 where native is better; None for native
        itself.
    """

    start: int
    end: int
    tokens: int
    loss: Estimate
    against_native: Estimate | None


@dataclass(frozen=True, slots=True)
class ShortCost:
    """What a condition costs within the training length, against native at the same places.

    Attributes
    ----------
    loss : Estimate
        Difference, nats a token.
    divergence : Estimate
        Kullback–Leibler divergence from native, nats.
    same_top : Estimate
        Share of positions at which both expect the same token most, in [0, 1].
    positions : int
        How many there are at which distributions were compared, in all texts.
    """

    loss: Estimate
    divergence: Estimate
    same_top: Estimate
    positions: int


@dataclass(frozen=True, slots=True)
class ComparedCondition:
    """One way of running the model, on the same texts as the others.

    Attributes
    ----------
    name : str
        As of `ggufext.audit.findings.results.Condition`.
    texts : int
        How many were measured under it.
    losses : tuple of LossBin
        By position.
    beyond : Estimate or None
        Loss of all tokens beyond the training length, nats a token.
    keys : tuple of LengthAccuracy
        Keys found in a text of each length, of several labelled ones.
    short_cost : ShortCost or None
        None for native.
    """

    name: str
    texts: int
    losses: tuple[LossBin, ...]
    beyond: Estimate | None
    keys: tuple[LengthAccuracy, ...]
    short_cost: ShortCost | None


@dataclass(frozen=True, slots=True)
class LossComparison:
    """Two conditions beyond the training length, on the same tokens.

    Attributes
    ----------
    a, b : str
        Names of the conditions.
    difference : Estimate
        Loss of a minus that of b, nats a token.
    """

    a: str
    b: str
    difference: Estimate


class Finding(Enum):
    """What a comparison comes to."""

    BEST = "best"
    """One extension is measured to be better than the others."""
    NO_DIFFERENCE = "no_difference"
    """Several extensions of which none is measured to be better."""
    NO_EXTENSION_NEEDED = "no_extension_needed"
    """Native still does at the target what it does as trained."""
    NOTHING_MEASURED = "nothing_measured"
    """No text was measured under native and an extension, or none that says anything."""


@dataclass(frozen=True, slots=True)
class Recommendation:
    """What to write, and why.

    Attributes
    ----------
    finding : Finding
    condition : str or None
        None where nothing is to be written.
    reason : str
        One sentence.
    """

    finding: Finding
    condition: str | None
    reason: str


@dataclass(frozen=True, slots=True)
class RecommendedPlan:
    """The recommended condition as a recipe says it; see `ggufext.planning.request.Recipe`.

    Attributes
    ----------
    method : Method
    target_length : int
        Context length, tokens.
    freq_base : float or None
        RoPE base θ that method gamma or ntk writes; None: the method's own.
    short, long : tuple of float or None
        What each pair's angle is divided by up to the original length and above it; None: nothing.
    beta_fast, beta_slow : float or None
        Turns within the original length between which YaRN mixes; None: the model's.
    attention_factor : float or None
        What queries and keys are multiplied by; None: the method's own.
    keep_short : bool
        Whether contexts up to the training length stay as they are.
    train_length : int or None
        Tokens that the model was really trained on, where that was said.
    train_freq_base : float or None
        RoPE base θ that it was really trained with, where that was said.
    """

    method: Method
    target_length: int
    freq_base: float | None
    short: tuple[float, ...] | None
    long: tuple[float, ...] | None
    beta_fast: float | None
    beta_slow: float | None
    attention_factor: float | None
    keep_short: bool
    train_length: int | None
    train_freq_base: float | None


@dataclass(frozen=True, slots=True)
class ComparedModel:
    """Which model it was.

    Attributes
    ----------
    path : str
        The file.
    size : int
        Bytes.
    facts_hash : str
        Hash of its RoPE facts and of the tensors' names, shapes and types; see
        `ggufext.header.facts.facts_hash`.
    """

    path: str
    size: int
    facts_hash: str


@dataclass(frozen=True, slots=True)
class CompareResult:
    """A whole comparison, complete or cut short, with everything to repeat it.

    Attributes
    ----------
    plan : RecommendedPlan or None
        None where nothing is to be written.
    model : ComparedModel
    evidence : Evidence or None
        What was measured of the plan, for the record of the edit that writes it.
    request : CompareRequest
        What was asked for: of an absent value, what stood for it.
    run : Run
        What was run: engine, prompts, cost, and why it stopped.
    texts : tuple of str
        Where each text is from.
    recommendation : Recommendation
    conditions : tuple of ComparedCondition
        Native first.
    losses : tuple of LossComparison
        Every two conditions, beyond the training length.
    keys : tuple of Comparison
        Every two conditions, on the keys of all lengths beyond the training length.
    warnings : tuple of ModelWarning
        What the run had to say, and what keeps its numbers from being a claim.
    """

    plan: RecommendedPlan | None
    model: ComparedModel
    evidence: Evidence | None
    request: CompareRequest
    run: Run
    texts: tuple[str, ...]
    recommendation: Recommendation
    conditions: tuple[ComparedCondition, ...]
    losses: tuple[LossComparison, ...]
    keys: tuple[Comparison, ...]
    warnings: tuple[ModelWarning, ...]
