"""Against scipy and statsmodels, and what must hold for every count."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.proportion import confint_proportions_2indep

from ggufext.audit.findings.statistics import (
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


@st.composite
def proportions(draw: st.DrawFn, most: int = 2000) -> tuple[int, int]:
    trials = draw(st.integers(1, most))
    return draw(st.integers(0, trials)), trials


# float64 arithmetic on values of order 1: a few units in the last place
_ROUNDING = 1e-12


@given(proportions())
def test_wilson_interval_equals_scipy(counts: tuple[int, int]) -> None:
    expected = stats.binomtest(*counts).proportion_ci(method="wilson")
    assert wilson_interval(*counts) == pytest.approx(
        (expected.low, expected.high), rel=_ROUNDING, abs=_ROUNDING
    )


@given(proportions())
def test_wilson_interval_lies_in_0_to_1_and_holds_the_share(counts: tuple[int, int]) -> None:
    hits, trials = counts
    low, high = wilson_interval(hits, trials)
    assert 0 <= low <= hits / trials <= high <= 1


@given(proportions())
def test_wilson_interval_of_the_misses_mirrors_that_of_the_hits(counts: tuple[int, int]) -> None:
    hits, trials = counts
    low, high = wilson_interval(hits, trials)
    assert wilson_interval(trials - hits, trials) == pytest.approx((1 - high, 1 - low))


@given(proportions())
def test_wilson_bounds_rise_with_one_more_hit(counts: tuple[int, int]) -> None:
    hits, trials = counts
    assume(hits < trials)
    before, after = wilson_interval(hits, trials), wilson_interval(hits + 1, trials)
    assert before[0] < after[0]
    assert before[1] < after[1] or after[1] == 1


@given(proportions(most=500), st.integers(2, 20))
def test_wilson_interval_narrows_with_more_trials_of_the_same_share(
    counts: tuple[int, int], times: int
) -> None:
    hits, trials = counts
    few, many = wilson_interval(hits, trials), wilson_interval(hits * times, trials * times)
    assert many[1] - many[0] < few[1] - few[0]


@pytest.mark.parametrize(("hits", "trials"), [(-1, 5), (6, 5), (0, 0)])
def test_wilson_interval_refuses_counts_that_cannot_be(hits: int, trials: int) -> None:
    with pytest.raises(ValueError, match="expected 0 to"):
        wilson_interval(hits, trials)


def test_twenty_of_twenty_prove_no_more_than_0_839() -> None:
    assert wilson_interval(20, 20)[0] == pytest.approx(0.839, abs=5e-4)


def test_a_bound_of_0_9_needs_35_hits_of_35() -> None:
    assert trials_needed(0.9) == 35


@given(st.floats(0.001, 0.9999))
def test_trials_needed_is_the_fewest_that_reach_the_bound(bound: float) -> None:
    needed = trials_needed(bound)
    assert wilson_interval(needed, needed)[0] >= bound
    assert needed == 1 or wilson_interval(needed - 1, needed - 1)[0] < bound


@pytest.mark.parametrize("bound", [0.0, 1.0, -0.5, 1.5])
def test_no_number_of_trials_proves_certainty(bound: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        trials_needed(bound)


@given(proportions(most=300), proportions(most=300))
def test_difference_interval_equals_statsmodels(a: tuple[int, int], b: tuple[int, int]) -> None:
    expected = confint_proportions_2indep(*a, *b, compare="diff", method="newcomb")
    assert difference_interval(*a, *b) == pytest.approx(expected, rel=1e-9, abs=1e-9)


@given(proportions(), proportions())
def test_difference_interval_holds_the_difference(a: tuple[int, int], b: tuple[int, int]) -> None:
    low, high = difference_interval(*a, *b)
    assert low <= a[0] / a[1] - b[0] / b[1] <= high


@given(st.integers(0, 400), st.integers(0, 400))
def test_mcnemar_exact_equals_statsmodels(only_a: int, only_b: int) -> None:
    assume(only_a + only_b > 0)
    expected = mcnemar([[0, only_a], [only_b, 0]], exact=True).pvalue
    assert mcnemar_exact(only_a, only_b) == pytest.approx(expected, rel=1e-9)


def test_mcnemar_finds_nothing_where_two_conditions_agree() -> None:
    assert mcnemar_exact(0, 0) == 1


def test_mcnemar_counts_thousands_of_disagreements_without_overflow() -> None:
    expected = stats.binomtest(2400, 5000).pvalue
    assert mcnemar_exact(2400, 2600) == pytest.approx(expected, rel=1e-9)


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_falls_as_the_disagreement_grows_more_one_sided(only_a: int, only_b: int) -> None:
    assume(only_a >= only_b)
    assert mcnemar_exact(only_a + 1, only_b) <= mcnemar_exact(only_a, only_b) + _ROUNDING


def every_sign(differences: list[int]) -> float:
    """The definition: all 2ⁿ exchanges, one by one."""
    observed = abs(sum(differences))
    sums = [
        abs(sum(sign * each for sign, each in zip(signs, differences, strict=True)))
        for signs in product((1, -1), repeat=len(differences))
    ]
    return sum(total >= observed for total in sums) / len(sums)


@given(st.lists(st.integers(-12, 12), max_size=10))
def test_sign_flip_equals_all_exchanges_counted_one_by_one(differences: list[int]) -> None:
    assert sign_flip_exact(differences) == pytest.approx(every_sign(differences), rel=_ROUNDING)


@given(st.integers(0, 200), st.integers(0, 200))
def test_sign_flip_of_one_answer_a_text_is_mcnemars_test(only_a: int, only_b: int) -> None:
    differences = [1] * only_a + [-1] * only_b
    assert sign_flip_exact(differences) == pytest.approx(mcnemar_exact(only_a, only_b), rel=1e-9)


def test_sign_flip_equals_scipys_permutation_test() -> None:
    differences = [3, -1, 4, 0, 2, 5, -2, 6, 1]
    theirs = stats.permutation_test(
        (differences,), np.sum, permutation_type="samples", n_resamples=np.inf
    )
    assert sign_flip_exact(differences) == pytest.approx(theirs.pvalue, rel=_ROUNDING)


def test_sign_flip_finds_nothing_where_no_text_differs() -> None:
    assert sign_flip_exact([0, 0, 0]) == 1.0


def test_sign_flip_of_a_thousand_texts_does_not_overflow() -> None:
    assert 0 < sign_flip_exact([2] * 1100 + [-1] * 100) < 1e-100


def test_resamples_draw_as_many_texts_as_there_are() -> None:
    drawn = text_resamples(7, seed=1)
    assert drawn.shape[1] == 7
    assert (drawn.sum(axis=1) == 7).all()


def test_resamples_are_a_property_of_the_seed() -> None:
    assert (text_resamples(5, seed=3) == text_resamples(5, seed=3)).all()
    assert not (text_resamples(5, seed=3) == text_resamples(5, seed=4)).all()


def test_bootstrap_over_texts_equals_scipy_where_each_text_gives_ten_answers() -> None:
    hits = [10, 9, 3, 10, 0, 7, 8, 10, 2, 6, 10, 1]
    ours = percentile_interval(
        resampled_accuracy(text_resamples(len(hits), seed=0), hits, [10] * len(hits))
    )
    theirs = stats.bootstrap(
        (np.array(hits) / 10,),
        np.mean,
        method="percentile",
        n_resamples=20_000,
        rng=np.random.default_rng(0),
    ).confidence_interval
    # a 2.5 % quantile of 4,000 resamples has a standard error of 0.0025/density: here 0.008
    assert ours == pytest.approx((theirs.low, theirs.high), abs=0.03)


def test_a_resample_without_an_answer_is_left_out() -> None:
    accuracy = resampled_accuracy(np.array([[2.0, 0.0], [0.0, 2.0]]), [3, 0], [4, 0])
    assert accuracy[0] == 0.75
    assert math.isnan(accuracy[1])
    assert percentile_interval(accuracy) == (0.75, 0.75)
    assert percentile_interval(accuracy[1:]) is None


def test_the_wider_interval_spans_both() -> None:
    assert wider((0.2, 0.6), (0.3, 0.9)) == (0.2, 0.9)
    assert wider((0.2, 0.6), None) == (0.2, 0.6)
