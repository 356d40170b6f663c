"""What the cells of a comparison say, and what they recommend."""

from __future__ import annotations

import math
from collections import defaultdict
from itertools import combinations
from types import MappingProxyType
from typing import TYPE_CHECKING

from ggufext.audit.conditions import planned_request
from ggufext.audit.findings.results import Comparison, ComparisonTest, LengthAccuracy
from ggufext.audit.findings.statistics import (
    mcnemar_exact,
    percentile_interval,
    resampled_accuracy,
    sign_flip_exact,
    text_resamples,
    wider,
    wilson_interval,
)
from ggufext.comparison.evidence import evidence
from ggufext.comparison.recommendation import recommendation
from ggufext.comparison.request import NATIVE
from ggufext.comparison.results import (
    ComparedCondition,
    CompareResult,
    Estimate,
    LossBin,
    LossComparison,
    RecommendedPlan,
    ShortCost,
)
from ggufext.comparison.statistics import TEXTS_DRAWN, mean_interval
from ggufext.comparison.texts import WITHIN
from ggufext.errors import ModelWarning
from ggufext.planning.plan import plan

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from ggufext.comparison.measure import CellRecord, MeasuredCells
    from ggufext.comparison.request import CompareRequest
    from ggufext.comparison.results import ComparedModel
    from ggufext.comparison.texts import KeysInTexts
    from ggufext.header.facts import ModelFacts
    from ggufext.planning.request import Recipe

#: From so many texts on the answers of a text count together: fewer cannot show a difference.
_TEXTS_EXCHANGED = 6

#: A loss above this share of that of a guess among all tokens: the model does not know the text.
_UNKNOWN_SHARE = 0.6


def result_of(
    measured: MeasuredCells,
    task: KeysInTexts,
    request: CompareRequest,
    model: ComparedModel,
    facts: ModelFacts,
    recipes: Mapping[str, Recipe] = MappingProxyType({}),
) -> CompareResult:
    """Everything that the cells say.

    Parameters
    ----------
    measured : MeasuredCells
    task : KeysInTexts
        Its texts are those of the cells.
    request : CompareRequest
        With all its conditions, native first.
    model : ComparedModel
    facts : ModelFacts
        Of the model before any edit of ours.
    recipes : mapping
        See `ggufext.audit.conditions.planned_request`.
    """
    cells = _Measured(measured, task, request)
    names = request.conditions
    conditions = tuple(cells.condition(name) for name in names)
    losses = tuple(cells.losses(names))
    keys = tuple(cells.keys(names))
    recommended = recommendation(
        conditions,
        losses,
        keys,
        within=tuple(cells.losses_within(names)),
        threshold=request.threshold,
        knows_text=(loss := _unknown(conditions[0], task, measured.vocabulary)) is None,
    )
    return CompareResult(
        plan=recommended_plan(recommended.condition, request, facts, recipes),
        model=model,
        evidence=evidence(
            "compare",
            recommended.condition,
            recommended.reason,
            conditions,
            losses,
            measured.run,
            train_length=facts.train_length,
        ),
        request=request,
        run=measured.run,
        texts=task.names,
        recommendation=recommended,
        conditions=conditions,
        losses=losses,
        keys=keys,
        warnings=(
            *(each for each in measured.warnings if each.code != "native_is_file"),
            *_warnings(measured, task, request, conditions[0], unknown=loss),
        ),
    )


def recommended_plan(
    condition: str | None,
    request: CompareRequest,
    facts: ModelFacts,
    recipes: Mapping[str, Recipe],
) -> RecommendedPlan | None:
    """A condition as a recipe says it; None for no condition.

    Parameters
    ----------
    request, facts, recipes
        As of `result_of`.
    """
    if condition is None:
        return None
    asked = planned_request(condition, request.plan, facts.published, recipes)
    factors, yarn = asked.factors, asked.yarn
    attention = factors or yarn
    return RecommendedPlan(
        method=asked.method,
        target_length=asked.target_length,
        # A recipe says no γ, but the base that comes of it.
        freq_base=asked.freq_base if asked.gamma is None else plan(facts, asked).freq_base.after,
        short=factors.short if factors else None,
        long=factors.long if factors else None,
        beta_fast=yarn.beta_fast if yarn else None,
        beta_slow=yarn.beta_slow if yarn else None,
        attention_factor=attention.attention_factor if attention else None,
        keep_short=asked.keep_short,
        train_length=request.train_length,
        train_freq_base=request.train_freq_base,
    )


class _Measured:
    """Cells by condition and text, and what they say of one condition or of two."""

    def __init__(self, measured: MeasuredCells, task: KeysInTexts, request: CompareRequest) -> None:
        self._task = task
        self._texts = {text.number: text for text in task.texts}
        self._seed = request.seed
        self._cells: dict[str, dict[int, CellRecord]] = defaultdict(dict)
        for record in sorted(measured.cells, key=lambda each: each.text):
            self._cells[record.condition][record.text] = record
        self._all_bins = range(len(task.bins))
        self._beyond = self._all_bins[WITHIN:]

    def condition(self, name: str) -> ComparedCondition:
        cells = list(self._cells[name].values())
        return ComparedCondition(
            name=name,
            texts=len(cells),
            losses=tuple(self._bins(name)),
            beyond=self._estimate([_blocks(each, self._beyond) for each in cells]),
            keys=tuple(self._accuracies(cells)),
            short_cost=None if name == NATIVE else self._short_cost(name),
        )

    def _bins(self, name: str) -> Iterator[LossBin]:
        cells = self._cells[name]
        for index, span in enumerate(self._task.bins):
            loss = self._estimate([_blocks(each, [index]) for each in cells.values()])
            if loss is not None:
                yield LossBin(
                    start=span.start,
                    end=span.end,
                    tokens=sum(self._texts[text].bins[index] for text in cells),
                    loss=loss,
                    against_native=None
                    if name == NATIVE
                    else self._difference(name, NATIVE, [index]),
                )

    def _difference(self, a: str, b: str, bins: Sequence[int]) -> Estimate | None:
        """Loss of a minus that of b, block by block of the texts that both were measured on."""
        first, second = self._cells[a], self._cells[b]
        return self._estimate(
            [
                [
                    x - y
                    for x, y in zip(
                        _blocks(first[text], bins), _blocks(second[text], bins), strict=True
                    )
                ]
                for text in first.keys() & second.keys()
            ]
        )

    def _estimate(self, texts: Sequence[Sequence[float]]) -> Estimate | None:
        known = [values for values in texts if values]
        return Estimate(*mean_interval(known, seed=self._seed)) if known else None

    def _short_cost(self, name: str) -> ShortCost | None:
        cells = list(self._cells[name].values())
        loss = self._difference(name, NATIVE, self._all_bins[:WITHIN])
        far = self._estimate([each.divergence for each in cells])
        same = self._estimate([[float(x) for x in each.same_top] for each in cells])
        if loss is None or far is None or same is None:
            return None
        agreed = [x for each in cells for x in each.same_top]
        wilson = wilson_interval(sum(agreed), len(agreed))
        return ShortCost(
            loss=loss,
            divergence=far,
            same_top=Estimate(same.mean, wider(wilson, same.interval)),
            positions=len(agreed),
        )

    def losses_within(self, names: Sequence[str]) -> Iterator[LossComparison]:
        """Every two conditions within the training length."""
        yield from self._pairs(names, self._all_bins[:WITHIN])

    def losses(self, names: Sequence[str]) -> Iterator[LossComparison]:
        """Every two conditions beyond the training length."""
        yield from self._pairs(names, self._beyond)

    def _pairs(self, names: Sequence[str], bins: Sequence[int]) -> Iterator[LossComparison]:
        for a, b in combinations(names, 2):
            if (difference := self._difference(a, b, bins)) is not None:
                yield LossComparison(a, b, difference)

    def _accuracies(self, cells: Sequence[CellRecord]) -> Iterator[LengthAccuracy]:
        if not cells:
            return
        lengths = [question.length for question in self._task.texts[0].questions]
        for length in dict.fromkeys(lengths):
            hits = [_at(cell.hits, lengths, {length}) for cell in cells]
            pooled = [hit for each in hits for hit in each]
            found, trials = sum(pooled), len(pooled)
            interval = wilson_interval(found, trials)
            if len(cells) > 1:
                resamples = text_resamples(len(cells), seed=self._seed)
                drawn = resampled_accuracy(
                    resamples, [sum(each) for each in hits], [len(each) for each in hits]
                )
                interval = wider(interval, percentile_interval(drawn))
            anywhere = [x for cell in cells for x in _at(cell.substrings, lengths, {length})]
            yield LengthAccuracy(
                length=length,
                accuracy=found / trials,
                interval=interval,
                trials=trials,
                substring=sum(anywhere) / trials,
            )

    def keys(self, names: Sequence[str]) -> Iterator[Comparison]:
        """Every two conditions on the keys of all lengths beyond the training length."""
        lengths = [question.length for question in self._task.texts[0].questions]
        beyond = set(lengths[1:]) - {lengths[0]}
        for a, b in combinations(names, 2):
            first, second = self._cells[a], self._cells[b]
            only_a, only_b = [], []
            for text in first.keys() & second.keys():
                found = list(
                    zip(
                        _at(first[text].hits, lengths, beyond),
                        _at(second[text].hits, lengths, beyond),
                        strict=True,
                    )
                )
                only_a.append(sum(x and not y for x, y in found))
                only_b.append(sum(y and not x for x, y in found))
            if not only_a or not beyond:
                continue
            exchanged = len(only_a) >= _TEXTS_EXCHANGED
            p = (
                sign_flip_exact(x - y for x, y in zip(only_a, only_b, strict=True))
                if exchanged
                else mcnemar_exact(sum(only_a), sum(only_b))
            )
            test = ComparisonTest.PERMUTATION_OVER_TEXTS if exchanged else ComparisonTest.MCNEMAR
            yield Comparison(a, b, sum(only_a), sum(only_b), test, p)


def _blocks(cell: CellRecord, bins: Sequence[int]) -> list[float]:
    return [loss for index in bins for loss in cell.losses[index]]


def _at(hits: Sequence[bool], lengths: Sequence[int], wanted: set[int]) -> list[bool]:
    return [hit for hit, length in zip(hits, lengths, strict=True) if length in wanted]


def _unknown(native: ComparedCondition, task: KeysInTexts, vocabulary: int) -> float | None:
    """Native's loss within the training length where the model does not know the text."""
    end = task.bins[WITHIN - 1].end
    losses = [each.loss.mean for each in native.losses if each.end == end]
    guess = math.log(vocabulary)
    return next((loss for loss in losses if loss > _UNKNOWN_SHARE * guess), None)


def _warnings(
    measured: MeasuredCells,
    task: KeysInTexts,
    request: CompareRequest,
    native: ComparedCondition,
    *,
    unknown: float | None,
) -> Iterator[ModelWarning]:
    stop = measured.run.stop
    if stop is not None:
        yield ModelWarning("cut_short", f"the run was cut short: {stop.message}")
    texts = len(task.texts)
    if not request.texts:
        yield ModelWarning(
            "made_text",
            "the texts are sentences that this program makes itself: what the loss on them says of "
            "real text is little; --text names a real one",
        )
    if texts < TEXTS_DRAWN:
        yield ModelWarning(
            "few_answers",
            f"intervals are for {'this text' if texts == 1 else f'these {texts} texts'}; from "
            f"{TEXTS_DRAWN} on they are for texts like them, and up to {_TEXTS_EXCHANGED - 1} the "
            "p of keys takes those of one text for independent (--trials)",
        )
    if unknown is not None:
        yield ModelWarning(
            "text_not_known",
            f"native loses {unknown:.1f} nats a token within its training length, where a guess "
            f"among all tokens loses {math.log(measured.vocabulary):.1f}: the text is in a "
            "language or of a kind that the model does not know, and says little of it",
        )
    control = native.keys[0] if native.keys else None
    if (
        control is not None
        and control.accuracy is not None
        and (control.accuracy < request.threshold)
    ):
        yield ModelWarning(
            "task_not_possible",
            f"native finds {control.accuracy * control.trials:.0f} of {control.trials} keys within "
            "its training length: the model cannot do this task, so its keys decide nothing",
        )
