"""What a search found: the dataclasses whose fields are the JSON of ``ggufext tune``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ggufext.audit.run.measure import Run
    from ggufext.comparison.results import ComparedModel, CompareResult, RecommendedPlan
    from ggufext.errors import ModelWarning
    from ggufext.planning.evidence import Evidence
    from ggufext.tuning.request import TuneRequest


@dataclass(frozen=True, slots=True)
class SearchedCondition:
    """A scaling that was tried.

    Attributes
    ----------
    name : str
        Of its condition.
    closed_form : bool
        Whether it is a method by its name.
    output_error : float
        Relative error by the screen, ≥ 0, against native attention within the training length.
    texts : int
        How many search texts it was measured on; 0: it was only screened.
    loss : float or None
        Mean beyond the training length on them, nats a token.
    """

    name: str
    closed_form: bool
    output_error: float
    texts: int
    loss: float | None


@dataclass(frozen=True, slots=True)
class TuneResult:
    """A whole search, complete or cut short, with everything to repeat it.

    Attributes
    ----------
    plan : RecommendedPlan or None
        The tuned scaling or the best closed form; None where the decision recommends no extension,
        or not even the closed forms were all measured.
    evidence : Evidence or None
        What was measured of it on held-out texts; None where nothing was decided there.
    model : ComparedModel
    request : TuneRequest
        What was asked for: of an absent value, what stood for it.
    run : Run
    tuned : str or None
        The best scaling of the search that is no closed form.
    kept : bool
        Whether it is what `plan` says: its loss beyond the training length on held-out texts is
        below that of the best closed form beyond the interval, and it finds no fewer keys.
    reason : str
        One sentence.
    searched : tuple of SearchedCondition
        Those on most texts first, then by loss, then by output error.
    decision : CompareResult or None
        Native, the best closed form and the tuned scaling on held-out texts; None where it was not
        measured.
    warnings : tuple of ModelWarning
        What the run had to say, and what keeps its numbers from being a claim.
    """

    plan: RecommendedPlan | None
    evidence: Evidence | None
    model: ComparedModel
    request: TuneRequest
    run: Run
    tuned: str | None
    kept: bool
    reason: str
    searched: tuple[SearchedCondition, ...]
    decision: CompareResult | None
    warnings: tuple[ModelWarning, ...]
