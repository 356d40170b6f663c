"""What is reported of a condition, from trials whose answer is known."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ggufext.audit.findings.results import ComparisonTest, Condition, LengthAccuracy, Profile
from ggufext.audit.findings.statistics import wilson_interval
from ggufext.audit.findings.summary import compare, compare_all, summarize
from ggufext.audit.request import Mode
from ggufext.audit.run.records import Trial

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

LENGTHS = (256, 512, 1024)
DEPTHS = (0.1, 0.3, 0.5, 0.7, 0.9)


def trials(
    hit: Callable[[int, int, float], bool | None],
    *,
    condition: str = "file",
    texts: int = 20,
    lengths: tuple[int, ...] = LENGTHS,
) -> tuple[Trial, ...]:
    """One answer of each text in each cell; `hit` gets text, length and depth."""
    return tuple(
        Trial(
            condition=condition,
            text=text,
            length=length,
            depth=depth,
            distance=round(length * (1 - depth)),
            hit=hit(text, length, depth),
            substring=hit(text, length, depth),
        )
        for text in range(texts)
        for length in lengths
        for depth in DEPTHS
    )


def summary(answers: Iterable[Trial], *, threshold: float = 0.8, seed: int = 0) -> Condition:
    return summarize(
        "file",
        answers,
        lengths=LENGTHS,
        depths=DEPTHS,
        threshold=threshold,
        train_length=256,
        seed=seed,
    )


def test_every_cell_that_was_asked_for_is_reported_shortest_and_shallowest_first() -> None:
    cells = summary(()).cells
    expected = [(length, depth) for length in LENGTHS for depth in DEPTHS]
    assert [(c.length, c.depth) for c in cells] == expected


def test_a_cell_that_was_not_measured_has_no_hits_instead_of_0() -> None:
    done = summary(trials(lambda _t, length, _d: None if length == 1024 else False))
    missing = [c for c in done.cells if c.length == 1024]
    assert {(c.hits, c.interval, c.trials) for c in missing} == {(None, None, 0)}
    measured = [c for c in done.cells if c.length == 512]
    assert {(c.hits, c.trials) for c in measured} == {(0, 20)}


def test_a_length_that_was_not_measured_has_no_accuracy() -> None:
    done = summary(trials(lambda _t, length, _d: None if length == 1024 else True))
    assert [(x.accuracy, x.trials) for x in done.lengths] == [(1.0, 100), (1.0, 100), (None, 0)]


def test_cells_have_wilson_intervals_where_every_answer_is_from_a_text_of_its_own() -> None:
    done = summary(trials(lambda text, _l, _d: text < 13))
    assert {cell.interval for cell in done.cells} == {wilson_interval(13, 20)}


def test_answers_that_share_a_text_widen_the_interval() -> None:
    # every text is all hits or all misses: 100 answers that are worth 20
    done = summary(trials(lambda text, _l, _d: text < 12))
    low, high = done.lengths[0].interval or (0.0, 0.0)
    independent = wilson_interval(60, 100)
    assert high - low > 1.5 * (independent[1] - independent[0])
    assert low < 0.6 < high


def test_answers_that_all_agree_keep_the_wilson_interval() -> None:
    done = summary(trials(lambda _t, _l, _d: True))
    assert done.lengths[0].interval == wilson_interval(100, 100)


def test_the_same_seed_gives_the_same_intervals() -> None:
    answers = trials(
        lambda text, length, depth: (text * 7 + length // 256 + int(depth * 10)) % 3 > 0
    )
    assert summary(answers, seed=5) == summary(answers, seed=5)


@given(st.lists(st.booleans(), min_size=60, max_size=60), st.integers(0, 3))
def test_every_interval_holds_its_accuracy(hits: list[bool], seed: int) -> None:
    answers = trials(
        lambda text, length, depth: hits[(text * 31 + length // 256 * 7 + int(depth * 10)) % 60],
        texts=6,
    )
    done = summary(answers, seed=seed)
    shares: tuple[LengthAccuracy | Profile, ...] = (*done.lengths, *done.depths, *done.distances)
    for found in shares:
        if found.accuracy is not None:
            low, high = found.interval or (2.0, -1.0)
            assert 0 <= low <= found.accuracy <= high <= 1
    lost = done.lost_in_the_middle
    assert lost is not None
    assert lost.interval[0] <= lost.difference <= lost.interval[1]


def test_profiles_cover_all_depths_and_count_every_answer_once() -> None:
    done = summary(trials(lambda text, _l, _d: text % 2 == 0))
    assert (done.depths[0].start, done.depths[-1].end) == (0, 1)
    assert all(a.end == b.start for a, b in zip(done.depths, done.depths[1:], strict=False))
    assert sum(bin_.trials for bin_ in done.depths) == 300


def test_distances_are_binned_by_octave_and_count_every_answer_once() -> None:
    done = summary(trials(lambda _t, _l, _d: True))
    assert all(bin_.end == 2 * bin_.start for bin_ in done.distances)
    assert sum(bin_.trials for bin_ in done.distances) == 300
    inside = [t for t in trials(lambda _t, _l, _d: True) if 64 <= t.distance < 128]
    assert next(b.trials for b in done.distances if b.start == 64) == len(inside)


def test_keys_lost_in_the_middle_give_a_negative_index() -> None:
    lost = summary(trials(lambda _t, _l, depth: depth != 0.5)).lost_in_the_middle
    assert lost is not None
    assert lost.difference == -1
    assert lost.interval[1] < 0


def test_there_is_no_index_without_depths_on_both_sides() -> None:
    middle = tuple(t for t in trials(lambda _t, _l, _d: True) if t.depth == 0.5)
    assert summary(middle).lost_in_the_middle is None


def test_effective_length_is_the_largest_up_to_which_all_lengths_reach_the_bound() -> None:
    done = summary(trials(lambda _t, length, _d: length <= 512))
    assert done.effective_length == 512
    assert done.effective_length_interval == (512, 512)


def test_effective_length_stops_at_the_first_failure_even_if_a_longer_one_recovers() -> None:
    assert summary(trials(lambda _t, length, _d: length != 512)).effective_length == 256


def test_effective_length_is_0_where_the_shortest_length_fails() -> None:
    assert summary(trials(lambda _t, length, _d: length > 256)).effective_length == 0


def test_effective_length_is_unknown_where_nothing_was_measured() -> None:
    done = summary(trials(lambda _t, _l, _d: None))
    assert done.effective_length is None
    assert done.effective_length_interval is None


def test_effective_length_does_not_reach_beyond_a_length_that_was_not_measured() -> None:
    done = summary(trials(lambda _t, length, _d: None if length == 512 else True))
    assert done.effective_length == 256


def test_effective_length_near_the_bound_has_an_interval_of_several_lengths() -> None:
    # at 512, 16 texts of 20 find everything: 0.8 exactly, half of the resamples lie below
    done = summary(trials(lambda text, length, _d: length == 256 or (text < 16 and length == 512)))
    assert done.effective_length == 512
    assert done.effective_length_interval == (256, 512)


@pytest.mark.parametrize(
    ("found", "of", "interval"),
    [
        (3, 3, (0, 256)),  # 44 to 100 %
        (15, 15, (0, 256)),  # 79.6 to 100 %
        (16, 16, (256, 256)),  # 80.6 to 100 %
        (0, 3, (0, 0)),  # 0 to 56 %
        (1, 3, (0, 0)),  # 6 to 79.2 %
        (2, 3, (0, 256)),  # 21 to 94 %
    ],
)
def test_the_interval_of_the_effective_length_says_how_little_a_few_answers_show(
    found: int, of: int, interval: tuple[int, int]
) -> None:
    answers = [Trial("file", text, 256, 0.5, 99, text < found, None) for text in range(of)]
    assert summary(answers).effective_length_interval == interval


@given(st.lists(st.booleans(), min_size=60, max_size=60), st.floats(0.05, 1))
def test_the_interval_of_the_effective_length_holds_it(hits: list[bool], threshold: float) -> None:
    answers = trials(
        lambda text, length, depth: hits[(text * 31 + length // 256 * 7 + int(depth * 10)) % 60],
        texts=6,
    )
    done = summary(answers, threshold=threshold)
    low, high = done.effective_length_interval or (1, 0)
    assert low <= (done.effective_length or 0) <= high


def test_the_interval_of_the_effective_length_misses_rarely() -> None:
    # A model that finds 90 % at 256, 85 % at 512 and 60 % at 1,024 tokens: 512 is right.
    rng = random.Random(0)
    shares = {256: 0.9, 512: 0.85, 1024: 0.6}
    held = 0
    for _ in range(200):
        done = summary(
            Trial("file", 50 * length + text, length, 0.5, 99, rng.random() < share, None)
            for length, share in shares.items()
            for text in range(50)
        )
        low, high = done.effective_length_interval or (1, 0)
        held += low <= 512 <= high
    assert held >= 0.95 * 200


def test_a_higher_threshold_gives_a_shorter_effective_length() -> None:
    answers = trials(lambda text, length, _d: length == 256 or text < 17)
    assert summary(answers, threshold=0.8).effective_length == 1024
    assert summary(answers, threshold=0.9).effective_length == 256


def test_native_control_fails_only_where_no_length_within_training_works() -> None:
    assert summary(trials(lambda _t, _l, _d: False)).native_control is False
    assert summary(trials(lambda _t, length, _d: length == 256)).native_control is True
    assert (
        summary(trials(lambda _t, length, _d: None if length == 256 else True)).native_control
        is None
    )


def test_trials_of_other_conditions_are_left_out() -> None:
    other = trials(lambda _t, _l, _d: False, condition="native")
    assert summary(other + trials(lambda _t, _l, _d: True)).lengths[0].accuracy == 1


def test_comparison_counts_prompts_that_only_one_condition_answered() -> None:
    a = trials(lambda text, length, _d: length == 256 or text < 2)
    b = trials(lambda _t, length, _d: length <= 512, condition="native")
    found = compare(a + b, "file", "native", mode=Mode.STANDARD)
    # 512: b alone has 18 texts of 5 depths; 1,024: a alone has 2 texts of 5 depths
    assert (found.only_a, found.only_b) == (10, 90)
    assert found.p < 1e-9


def test_comparison_leaves_out_prompts_that_one_condition_was_not_asked() -> None:
    a = trials(lambda _t, _l, _d: True)
    b = trials(lambda _t, length, _d: None if length > 256 else False, condition="native")
    assert compare(a + b, "file", "native", mode=Mode.STANDARD).only_a == 100


def test_comparison_pairs_several_answers_of_one_text_in_their_order() -> None:
    def twice(condition: str, first: bool, second: bool) -> tuple[Trial, ...]:
        return tuple(Trial(condition, 0, 256, 0.5, 100, hit, hit) for hit in (first, second))

    found = compare(twice("a", True, False) + twice("b", True, True), "a", "b", mode=Mode.STANDARD)
    assert (found.only_a, found.only_b) == (0, 1)


def test_all_pairs_are_compared_in_the_order_of_the_conditions() -> None:
    names = ("file", "native", "planned:gamma")
    answers = [Trial(name, 0, 256, 0.5, 9, True, None) for name in reversed(names)]
    answers.append(Trial("planned:yarn", 0, 256, 0.5, 9, None, None))
    pairs = compare_all(answers, (*names, "planned:yarn"), mode=Mode.STANDARD)
    assert [(p.a, p.b) for p in pairs] == [
        ("file", "native"),
        ("file", "planned:gamma"),
        ("native", "planned:gamma"),
    ]


@pytest.mark.parametrize("depth", [1 / 3, 0.5, 2 / 3])
def test_the_middle_third_has_its_edges(depth: float) -> None:
    answers = tuple(
        Trial("file", t, 256, d, 9, d != depth, None) for t in range(9) for d in (0, depth)
    )
    lost = summarize(
        "file",
        answers,
        lengths=(256,),
        depths=(0, depth),
        threshold=0.8,
        train_length=None,
        seed=0,
    ).lost_in_the_middle
    assert lost is not None
    assert lost.difference == -1


def test_keys_behind_another_number_count_for_the_substring_score_only() -> None:
    answers = tuple(Trial("file", t, 256, 0.5, 9, False, t < 3) for t in range(4))
    length = summary(answers).lengths[0]
    assert (length.accuracy, length.substring) == (0.0, 0.75)
    assert summary(answers).lengths[1].substring is None


def text_of_sweep(condition: str, text: int, hits: Sequence[bool]) -> list[Trial]:
    """Answers of one text, a length each."""
    return [
        Trial(condition, text, 256 * (index + 1), 0.5, 128, hit, hit)
        for index, hit in enumerate(hits)
    ]


def test_sweep_counts_the_answers_of_a_text_as_one() -> None:
    # One text of ten differs, in twenty answers: much for McNemar, nothing over texts.
    answers = [
        trial
        for text in range(10)
        for name in ("a", "b")
        for trial in text_of_sweep(name, text, [name == "a" or text > 0] * 20)
    ]
    found = compare(answers, "a", "b", mode=Mode.SWEEP)
    assert (found.only_a, found.only_b) == (20, 0)
    assert found.test is ComparisonTest.PERMUTATION_OVER_TEXTS
    assert found.p == 1.0
    assert compare(answers, "a", "b", mode=Mode.STANDARD).p < 1e-5
