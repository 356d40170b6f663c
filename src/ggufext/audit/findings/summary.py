"""From trials to what is reported of a condition: cells, profiles, effective length."""

from __future__ import annotations

from collections import defaultdict
from itertools import combinations, pairwise, takewhile
from typing import TYPE_CHECKING

from ggufext.audit.findings.results import (
    Cell,
    CheckResult,
    Comparison,
    ComparisonTest,
    Condition,
    LengthAccuracy,
    LostInTheMiddle,
    Profile,
)
from ggufext.audit.findings.statistics import (
    SIGNIFICANT,
    difference_interval,
    mcnemar_exact,
    percentile_interval,
    resampled_accuracy,
    sign_flip_exact,
    text_resamples,
    trials_needed,
    wider,
    wilson_interval,
)
from ggufext.audit.request import Mode, depth_bins
from ggufext.errors import ModelWarning, printable
from ggufext.text import percent

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import numpy as np
    import numpy.typing as npt

    from ggufext.audit.findings.results import Interval
    from ggufext.audit.request import CheckRequest
    from ggufext.audit.run.measure import Measured, Stop
    from ggufext.audit.run.records import Trial

_THIRD = 1 / 3

#: What makes a question the same in two conditions, its text first.
_Prompt = tuple[object, ...]


def summarize(
    name: str,
    trials: Iterable[Trial],
    *,
    lengths: Sequence[int],
    depths: Sequence[float],
    threshold: float,
    train_length: int | None,
    seed: int,
) -> Condition:
    """Everything that is reported of one condition.

    Parameters
    ----------
    name : str
        The condition; trials of others are left out.
    trials : iterable of Trial
        Those with ``hit`` None count as not measured.
    lengths, depths : sequence of int, of float
        Every cell that was asked for: one without a measured trial is reported as such.
    threshold : float
        Accuracy that the effective length asks for, in (0, 1].
    train_length : int or None
        Lengths up to here are the native control, tokens.
    seed : int
        Of the bootstrap over texts.
    """
    asked = tuple(trial for trial in trials if trial.condition == name)
    answers = _Answers(tuple(trial for trial in asked if trial.hit is not None), seed=seed)
    by_length = tuple(_length_accuracy(answers, length) for length in sorted(set(lengths)))
    effective, interval = _effective_length(by_length, threshold)
    return Condition(
        name=name,
        cells=tuple(
            _cell(asked, answers, length, depth)
            for length in sorted(set(lengths))
            for depth in sorted(set(depths))
        ),
        lengths=by_length,
        depths=_depth_profile(answers, depths),
        distances=_distance_profile(answers),
        lost_in_the_middle=_lost_in_the_middle(answers),
        effective_length=effective,
        effective_length_interval=interval,
        native_control=_native_control(by_length, threshold, train_length),
    )


def compare(trials: Iterable[Trial], a: str, b: str, *, mode: Mode) -> Comparison:
    """Test of conditions `a` and `b` on the prompts that both answered.

    McNemar's in standard mode, where each prompt has a key of its own; over texts in sweep mode,
    where prompts share all their keys.
    """
    hits: dict[str, dict[_Prompt, bool]] = {a: {}, b: {}}
    asked: dict[tuple[str, _Prompt], int] = defaultdict(int)
    for trial in trials:
        if trial.condition not in hits:
            continue
        prompt = (trial.text, trial.length, trial.depth, trial.distance)
        # One text may ask twice in a cell: the answers are paired in their order.
        asked[trial.condition, prompt] += 1
        if trial.hit is not None:
            again = asked[trial.condition, prompt]
            hits[trial.condition][(*prompt, again)] = trial.hit
    by_text: dict[object, int] = defaultdict(int)
    only_a = only_b = 0
    for both in hits[a].keys() & hits[b].keys():
        by_text[both[0]] += hits[a][both] - hits[b][both]
        only_a += hits[a][both] and not hits[b][both]
        only_b += hits[b][both] and not hits[a][both]
    if mode is Mode.SWEEP:
        test, p = ComparisonTest.PERMUTATION_OVER_TEXTS, sign_flip_exact(by_text.values())
    else:
        test, p = ComparisonTest.MCNEMAR, mcnemar_exact(only_a, only_b)
    return Comparison(a=a, b=b, only_a=only_a, only_b=only_b, test=test, p=p)


def compare_all(
    trials: Sequence[Trial], names: Sequence[str], *, mode: Mode
) -> tuple[Comparison, ...]:
    """Every pair of conditions that gave an answer, in the order in which they were asked for."""
    answered = {trial.condition for trial in trials if trial.hit is not None}
    pairs = combinations([name for name in names if name in answered], 2)
    return tuple(compare(trials, a, b, mode=mode) for a, b in pairs)


def result_of(measured: Measured) -> CheckResult:
    """The result of a run, complete or cut short: what it did not get to is not measured."""
    request, run = measured.request, measured.run
    conditions = tuple(
        summarize(
            name,
            measured.trials,
            lengths=request.lengths or (),
            depths=[bin_.depth for bin_ in depth_bins(request.depths)],
            threshold=request.threshold,
            train_length=run.train_length,
            seed=request.seed,
        )
        for name in request.conditions
    )
    comparisons = compare_all(measured.trials, request.conditions, mode=request.mode)
    return CheckResult(
        request=request,
        run=run,
        conditions=conditions,
        comparisons=comparisons,
        warnings=(
            *measured.warnings,
            *cautions(conditions, train_length=run.train_length, stop=run.stop),
            *too_few_texts(comparisons, request.trials),
        ),
    )


def bound_out_of_reach(request: CheckRequest, bound: float) -> str | None:
    """Why no outcome of a request can show an accuracy of at least `bound`; None where one can.

    Parameters
    ----------
    request : CheckRequest
    bound : float
        What the lower end of the interval is to reach, in (0, 1).
    """
    answers = request.answers_per_length
    best = wilson_interval(answers, answers)[0]
    if best >= bound:
        return None
    return (
        f"{bound:g} cannot be reached: {answers} answers a length, all of them right, give a lower "
        f"bound of {best:.3f}; it needs at least {trials_needed(bound)} (depths times trials)"
    )


def bound_missed(result: CheckResult, bound: float) -> str | None:
    """Where a result misses a lower bound of the accuracy at its longest length; None: nowhere.

    It is asked of the condition ``file`` where that is one of them, else of the first.

    Parameters
    ----------
    result : CheckResult
    bound : float
        What the lower end of the interval is to reach, in (0, 1).
    """
    names = [condition.name for condition in result.conditions]
    judged = result.conditions[names.index("file") if "file" in names else 0]
    longest = judged.lengths[-1]
    low = longest.interval[0] if longest.interval else None
    if low is not None and low >= bound:
        return None
    found = "it was not measured" if low is None else f"the lower bound is {low:.3f}"
    return f"{printable(judged.name)} at {longest.length:,} tokens: {found}, {bound:g} is required"


class _Answers:
    """Measured trials of one condition, and the resamples of their texts."""

    def __init__(self, trials: tuple[Trial, ...], *, seed: int) -> None:
        self.trials = trials
        self._row = {text: row for row, text in enumerate(sorted({t.text for t in trials}))}
        self._seed = seed
        self._drawn: npt.NDArray[np.float64] | None = None

    def accuracy(self, group: Sequence[Trial]) -> tuple[float | None, Interval | None]:
        """Accuracy of some of the trials with its interval."""
        if not group:
            return None, None
        hits = sum(bool(trial.hit) for trial in group)
        interval = wilson_interval(hits, len(group))
        if len({trial.text for trial in group}) < len(group):
            interval = wider(interval, percentile_interval(self.resampled(group)))
        return hits / len(group), interval

    def resampled(self, group: Sequence[Trial]) -> npt.NDArray[np.float64]:
        """Accuracy of some of the trials in each resample of the texts, shape (resamples,)."""
        if self._drawn is None:
            self._drawn = text_resamples(len(self._row), seed=self._seed)
        hits, counts = [0] * len(self._row), [0] * len(self._row)
        for trial in group:
            hits[self._row[trial.text]] += bool(trial.hit)
            counts[self._row[trial.text]] += 1
        return resampled_accuracy(self._drawn, hits, counts)


def _cell(asked: tuple[Trial, ...], answers: _Answers, length: int, depth: float) -> Cell:
    planned = [t.distance for t in asked if t.length == length and t.depth == depth]
    group = [t for t in answers.trials if t.length == length and t.depth == depth]
    _, interval = answers.accuracy(group)
    return Cell(
        length=length,
        depth=depth,
        distance=sum(planned) / len(planned) if planned else length * (1 - depth),
        trials=len(group),
        hits=sum(bool(t.hit) for t in group) if group else None,
        interval=interval,
    )


def _length_accuracy(answers: _Answers, length: int) -> LengthAccuracy:
    group = [t for t in answers.trials if t.length == length]
    accuracy, interval = answers.accuracy(group)
    return LengthAccuracy(
        length=length,
        accuracy=accuracy,
        interval=interval,
        trials=len(group),
        substring=sum(bool(t.substring) for t in group) / len(group) if group else None,
    )


def _profile(answers: _Answers, group: Sequence[Trial], start: float, end: float) -> Profile:
    accuracy, interval = answers.accuracy(group)
    return Profile(start=start, end=end, accuracy=accuracy, interval=interval, trials=len(group))


def _depth_profile(answers: _Answers, depths: Sequence[float]) -> tuple[Profile, ...]:
    known = sorted(set(depths))
    edges = [0.0, *((a + b) / 2 for a, b in pairwise(known)), 1.0]
    return tuple(
        _profile(answers, [t for t in answers.trials if t.depth == depth], start, end)
        for depth, (start, end) in zip(known, pairwise(edges), strict=True)
    )


def _distance_profile(answers: _Answers) -> tuple[Profile, ...]:
    """Bins that double, because RoPE's angles are compared over octaves of distance."""
    if not answers.trials:
        return ()
    bins: dict[int, list[Trial]] = defaultdict(list)
    for trial in answers.trials:
        bins[trial.distance.bit_length()].append(trial)
    return tuple(
        _profile(answers, bins[bits], 2 ** (bits - 1) if bits else 0, 2**bits)
        for bits in range(min(bins), max(bins) + 1)
    )


def _lost_in_the_middle(answers: _Answers) -> LostInTheMiddle | None:
    middle = [t for t in answers.trials if _THIRD <= t.depth <= 1 - _THIRD]
    outer = [t for t in answers.trials if not _THIRD <= t.depth <= 1 - _THIRD]
    if not middle or not outer:
        return None
    counts = [(sum(bool(t.hit) for t in group), len(group)) for group in (middle, outer)]
    (hits_middle, of_middle), (hits_outer, of_outer) = counts
    resampled = answers.resampled(middle) - answers.resampled(outer)
    return LostInTheMiddle(
        difference=hits_middle / of_middle - hits_outer / of_outer,
        interval=wider(
            difference_interval(hits_middle, of_middle, hits_outer, of_outer),
            percentile_interval(resampled),
        ),
    )


def _effective_length(
    lengths: Sequence[LengthAccuracy], threshold: float
) -> tuple[int | None, tuple[int, int] | None]:
    """Effective length, and what the intervals of the lengths leave of it.

    Only the lengths before the first that was not measured can say anything. At the low end are
    the lengths whose interval lies above the threshold, at the high end those whose interval
    reaches it.
    """
    measured = [
        (length.length, length.accuracy, *length.interval)
        for length in takewhile(lambda length: length.accuracy is not None, lengths)
        if length.accuracy is not None and length.interval is not None
    ]
    if not measured:
        return None, None

    def up_to(column: int) -> int:
        reached = list(takewhile(lambda row: row[column] >= threshold, measured))
        return reached[-1][0] if reached else 0

    return up_to(1), (up_to(2), up_to(3))


def _native_control(
    lengths: Sequence[LengthAccuracy], threshold: float, train_length: int | None
) -> bool | None:
    """Whether any length within training reaches the threshold; longer ones may still be lost."""
    native = [
        length.accuracy
        for length in lengths
        if length.accuracy is not None
        and train_length is not None
        and length.length <= train_length
    ]
    return max(native) >= threshold if native else None


#: Answers at a length below which an interval is too wide for a claim.
_CLAIM = 20

#: Share of answers that hold the key behind another number, from which on that is said.
_TALKATIVE = 0.1


def cautions(
    conditions: Sequence[Condition], *, train_length: int | None, stop: Stop | None
) -> tuple[ModelWarning, ...]:
    """What keeps the numbers of a run from being a claim.

    Returns
    -------
    tuple of ModelWarning
        ``cut_short``, ``task_not_possible``, ``short_contexts_lost``, ``no_native_control``,
        ``answers_talk``, ``few_answers``.
    """
    found: list[ModelWarning] = []
    if stop is not None:
        found.append(
            ModelWarning(
                "cut_short",
                "the run was cut short, so that cells without an answer are shown as not measured: "
                f"{stop.message}",
            )
        )
    found += _about_native_control(conditions, train_length)
    for condition in conditions:
        found += _talkative(condition)
    answers = [x.trials for c in conditions for x in c.lengths if x.trials]
    if answers and min(answers) < _CLAIM:
        found.append(
            ModelWarning(
                "few_answers",
                f"some lengths have {min(answers)} answers: pool at least {_CLAIM} before a claim "
                "(--trials)",
            )
        )
    return tuple(found)


def too_few_texts(comparisons: Sequence[Comparison], texts: int) -> tuple[ModelWarning, ...]:
    """Whether conditions are compared over so few texts that no difference can show.

    Returns
    -------
    tuple of ModelWarning
        ``few_answers`` or nothing.
    """
    smallest = 2.0 ** (1 - texts)
    over_texts = any(c.test is ComparisonTest.PERMUTATION_OVER_TEXTS for c in comparisons)
    if not over_texts or smallest < SIGNIFICANT:
        return ()
    return (
        ModelWarning(
            "few_answers",
            f"conditions are compared over {texts} texts, so p cannot fall below {smallest:.2g} "
            "whatever they do: 6 texts are the fewest that can show a difference (--trials)",
        ),
    )


def _about_native_control(
    conditions: Sequence[Condition], train_length: int | None
) -> Iterator[ModelWarning]:
    """A failure within training is the model's, unless another condition succeeds there."""
    able = [c.name for c in conditions if c.native_control]
    unable = [c.name for c in conditions if c.native_control is False]
    if able:
        # Native costs nothing: what it does not find there it never found.
        extended = [name for name in unable if name != "native"]
        if extended:
            yield ModelWarning(
                "short_contexts_lost",
                f"{', '.join(extended)} loses keys within the training length, where {able[0]} "
                "finds them: it costs short contexts",
            )
    elif unable:
        native = any(c.name == "native" for c in conditions)
        yield ModelWarning(
            "task_not_possible",
            "no condition finds the key even within the training length: the model cannot do this "
            "task"
            + ("" if native else ", or an edit of the file costs it (--condition native tells)")
            + "; the audit says nothing about an extension",
        )
    elif train_length is not None:
        yield ModelWarning(
            "no_native_control",
            f"no length within the training length of {train_length:,} tokens was measured: a "
            "model that cannot do this task at all would look like a bad extension",
        )


def _talkative(condition: Condition) -> Iterator[ModelWarning]:
    answered = sum(x.trials for x in condition.lengths)
    if not answered:
        return
    first = sum((x.accuracy or 0.0) * x.trials for x in condition.lengths) / answered
    anywhere = sum((x.substring or 0.0) * x.trials for x in condition.lengths) / answered
    if anywhere - first > _TALKATIVE:
        yield ModelWarning(
            "answers_talk",
            f"{condition.name}: the key stands somewhere in {percent(anywhere)} of the answers, "
            f"but is the first number in {percent(first)}: the model says more than the key",
        )
