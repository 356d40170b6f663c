"""What a passkey audit found: the dataclasses whose fields are the JSON of ``ggufext check``."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ggufext.audit.request import CheckRequest
    from ggufext.audit.run.measure import Run
    from ggufext.errors import ModelWarning

#: A 95 % interval, (low, high), both in [0, 1]; of a difference both in [−1, 1].
Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Cell:
    """Trials of one length and depth.

    Attributes
    ----------
    length : int
        Tokens of prompt and answer.
    depth : float
        Middle of the bin of depths, from 0 (the beginning) to 1.
    distance : float
        From the key to the question, tokens.
    trials : int
        How many were asked.
    hits : int or None
        How many were answered right; None where nothing was measured, never 0.
    interval : (float, float) or None
        Of the share of right answers, 95 %, in [0, 1].
    """

    length: int
    depth: float
    distance: float
    trials: int
    hits: int | None
    interval: Interval | None


@dataclass(frozen=True, slots=True)
class LengthAccuracy:
    """Pooled accuracy of one length; None where it was not measured.

    Attributes
    ----------
    length : int
        Tokens of prompt and answer.
    accuracy : float or None
        Share of right answers, in [0, 1].
    interval : (float, float) or None
        Of the accuracy, 95 %, in [0, 1].
    trials : int
        How many were asked.
    substring : float or None
        Share of answers in which the key stands anywhere, in [0, 1].
    """

    length: int
    accuracy: float | None
    interval: Interval | None
    trials: int
    substring: float | None


@dataclass(frozen=True, slots=True)
class Profile:
    """Accuracy in one bin of depth or distance, [start, end).

    Attributes
    ----------
    start, end : float
        Of depths from 0 (the beginning) to 1; of distances tokens.
    accuracy : float or None
        Share of right answers, in [0, 1]; None where it was not measured.
    interval : (float, float) or None
        Of the accuracy, 95 %, in [0, 1].
    trials : int
        How many were asked.
    """

    start: float
    end: float
    accuracy: float | None
    interval: Interval | None
    trials: int


@dataclass(frozen=True, slots=True)
class LostInTheMiddle:
    """Accuracy of the middle third of depths minus that of the outer thirds.

    Attributes
    ----------
    difference : float
        Difference of shares, in [−1, 1].
    interval : (float, float)
        At 95 %, in [−1, 1].
    """

    difference: float
    interval: Interval


@dataclass(frozen=True, slots=True)
class Condition:
    """One way of running the model, on the same prompts as the others.

    Attributes
    ----------
    name : str
        ``"file"``, ``"native"``, ``"planned:gamma"``, ``"self-extend:g=4,w=512"`` …
    cells : tuple of Cell
        One a length and depth.
    lengths : tuple of LengthAccuracy
        All depths of a length together.
    depths : tuple of Profile
        All lengths of a depth together.
    distances : tuple of Profile
        All lengths together, by distance from the key to the question.
    lost_in_the_middle : LostInTheMiddle or None
        None where too little was measured.
    effective_length : int or None
        Largest tested length up to which every length's accuracy reaches the bound, tokens; 0
        where none does; None where it was not measured.
    effective_length_interval : (int, int) or None
        A pair of tested lengths, tokens (0: none), from the intervals of the lengths.
    native_control : bool or None
        Whether the model can do the task at lengths up to its training length at all.
    """

    name: str
    cells: tuple[Cell, ...]
    lengths: tuple[LengthAccuracy, ...]
    depths: tuple[Profile, ...]
    distances: tuple[Profile, ...]
    lost_in_the_middle: LostInTheMiddle | None
    effective_length: int | None
    effective_length_interval: tuple[int, int] | None
    native_control: bool | None


class ComparisonTest(Enum):
    """How two conditions are compared on the prompts that both answered."""

    MCNEMAR = "mcnemar"
    """McNemar's exact test: every prompt counts for itself."""
    PERMUTATION_OVER_TEXTS = "permutation_over_texts"
    """Exact permutation test: the answers of a text count together."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Test of two conditions on the prompts that both answered.

    Attributes
    ----------
    a, b : str
        Names of the conditions.
    only_a, only_b : int
        How many prompts only one of the two answered.
    test : ComparisonTest
    p : float
        Probability, two-sided, in (0, 1].
    """

    a: str
    b: str
    only_a: int
    only_b: int
    test: ComparisonTest
    p: float


@dataclass(frozen=True, slots=True)
class CheckResult:
    """A whole audit, complete or cut short, with everything to repeat it.

    Attributes
    ----------
    request : CheckRequest
        What was asked for: of an absent value, what stood for it.
    run : Run
        What was run: engine, prompts, cost, and why it stopped.
    conditions : tuple of Condition
        In the order of the request.
    comparisons : tuple of Comparison
        Every two conditions.
    warnings : tuple of ModelWarning
        What the run had to say, and what keeps its numbers from being a claim.
    """

    request: CheckRequest
    run: Run
    conditions: tuple[Condition, ...]
    comparisons: tuple[Comparison, ...]
    warnings: tuple[ModelWarning, ...]
