"""What the runs of a search say, and what is to be written."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ggufext.comparison import findings as comparison
from ggufext.comparison.evidence import evidence
from ggufext.comparison.request import NATIVE
from ggufext.errors import ModelWarning
from ggufext.tuning.results import SearchedCondition, TuneResult
from ggufext.tuning.verdict import verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ggufext.comparison.measure import MeasuredCells
    from ggufext.comparison.results import ComparedModel, CompareResult
    from ggufext.comparison.texts import KeysInTexts
    from ggufext.header.facts import ModelFacts
    from ggufext.planning.request import Recipe
    from ggufext.tuning.halving import Halving
    from ggufext.tuning.request import TuneRequest
    from ggufext.tuning.screening import Screened


@dataclass(frozen=True, slots=True)
class Searched:
    """What was screened, and which of it was run.

    Attributes
    ----------
    closed : sequence of Screened
        Closed forms, all of which are run.
    chosen : sequence of Screened
        Of `others` those that are run.
    others : sequence of Screened
        All that are no closed form.
    """

    closed: Sequence[Screened]
    chosen: Sequence[Screened]
    others: Sequence[Screened]

    @property
    def closed_names(self) -> tuple[str, ...]:
        """Conditions."""
        return tuple(each.candidate.name for each in self.closed)

    @property
    def chosen_names(self) -> tuple[str, ...]:
        """Conditions."""
        return tuple(each.candidate.name for each in self.chosen)

    @property
    def recipes(self) -> dict[str, Recipe]:
        """By condition, what its name does not say."""
        candidates = [each.candidate for each in self.chosen]
        return {each.name: each.recipe for each in candidates if each.recipe is not None}


@dataclass(frozen=True, slots=True)
class EndedSearch:
    """A search with all that it measured.

    Attributes
    ----------
    measured : MeasuredCells
    task : KeysInTexts
        Its texts are those of the cells.
    halving : Halving
        That chose the cells.
    searched : Searched
    request : TuneRequest
    model : ComparedModel
    facts : ModelFacts
        Of the model before any edit of ours.
    """

    measured: MeasuredCells
    task: KeysInTexts
    halving: Halving
    searched: Searched
    request: TuneRequest
    model: ComparedModel
    facts: ModelFacts


def result_of(search: EndedSearch) -> TuneResult:
    """Everything that the cells say."""
    measured, halving, searched = search.measured, search.halving, search.searched
    winners = halving.winners(measured.cells)
    decision = None
    if halving.decided(measured.cells):
        decision = _decision(search)
    closed = next((name for name in winners if name in searched.closed_names), None)
    tuned = next((name for name in winners if name in searched.chosen_names), None)
    kept, written = False, closed
    reason = "nothing was decided on held-out texts"
    if decision is not None and closed is not None and tuned is not None:
        kept, reason = verdict(decision, closed, tuned)
        if kept:
            written = tuned
        elif decision.recommendation.condition is None:
            written = None
    elif {each.name for each in halving.standings(measured.cells)} >= set(searched.closed_names):
        reason += f"; on those that were searched on the best closed form is {closed}"
    else:
        written = None
        reason += ", nor were all closed forms measured on a searched one, so none is recommended"
    return TuneResult(
        plan=comparison.recommended_plan(
            written, search.request.compared(()), search.facts, searched.recipes
        ),
        evidence=None
        if decision is None
        else evidence(
            "tune",
            written,
            reason,
            decision.conditions,
            decision.losses,
            measured.run,
            train_length=search.facts.train_length,
        ),
        model=search.model,
        request=search.request,
        run=measured.run,
        tuned=tuned,
        kept=kept,
        reason=reason,
        searched=_conditions(search),
        decision=decision,
        warnings=tuple(_warnings(search, decision)),
    )


def _decision(search: EndedSearch) -> CompareResult:
    """The comparison of native and both winners on held-out texts."""
    measured, halving = search.measured, search.halving
    held = {text.number for text in halving.held}
    cells = tuple(each for each in measured.cells if each.text in held)
    return comparison.result_of(
        replace(measured, cells=cells),
        search.task.only(held),
        search.request.compared((NATIVE, *halving.winners(measured.cells))),
        search.model,
        search.facts,
        search.searched.recipes,
    )


def _conditions(search: EndedSearch) -> tuple[SearchedCondition, ...]:
    searched = search.searched
    standings = search.halving.standings(search.measured.cells)
    known = {each.name: (rank, each) for rank, each in enumerate(standings)}
    found = []
    for each in (*searched.closed, *searched.others):
        name = each.candidate.name
        rank, standing = known.get(name, (len(known), None))
        condition = SearchedCondition(
            name=name,
            closed_form=name in searched.closed_names,
            output_error=each.error,
            texts=standing.texts if standing else 0,
            loss=standing.loss if standing else None,
        )
        found.append((rank, each.error, condition))
    return tuple(condition for *_, condition in sorted(found, key=lambda each: each[:2]))


def _warnings(search: EndedSearch, decision: CompareResult | None) -> list[ModelWarning]:
    measured = search.measured
    said = measured.warnings if decision is None else decision.warnings
    found = [each for each in said if each.code != "native_is_file"]
    if measured.run.stop is not None and decision is None:
        found.append(
            ModelWarning("cut_short", f"the run was cut short: {measured.run.stop.message}")
        )
    if search.halving.out_of_time:
        found.append(
            ModelWarning(
                "time_used_up",
                f"the {search.request.minutes:g} minutes ended the search before its last round; "
                "--resume goes on with it",
            )
        )
    return found
