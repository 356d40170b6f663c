"""Intervals, tests and words are those of the protocol."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

pytest.importorskip("statsmodels")
from statsmodels.stats.multitest import multipletests

from inference import (
    Paired,
    Verdict,
    block_interval,
    holm,
    main_effects,
    paired,
    slope,
    slope_interval,
)


def test_a_paired_mean_is_that_of_scipy() -> None:
    values = [0.3, -0.1, 0.25, 0.4, 0.05]
    expected = stats.ttest_1samp(values, 0)
    found = paired(values)
    assert found is not None
    assert found.p == pytest.approx(expected.pvalue)
    interval = expected.confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))


def test_one_unit_has_no_interval_and_equal_ones_no_width() -> None:
    assert paired([0.5]) is None
    assert paired([0.0, 0.0]) == Paired(2, 0.0, 0.0, 0.0, 1.0)


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    found = [paired(list(rng.normal(0.2, 1, size=4))) for _ in range(2000)]
    held = [each is not None and each.low < 0.2 < each.high for each in found]
    assert abs(np.mean(held) - 0.95) < 0.02


def test_holm_is_that_of_statsmodels() -> None:
    values = [0.01, 0.04, 0.03, 0.005, 0.6]
    assert holm(values) == pytest.approx(list(multipletests(values, method="holm")[1]))


@pytest.mark.parametrize(
    ("mean", "low", "high", "p", "word"),
    [
        (-0.05, -0.07, -0.03, 0.001, Verdict.BETTER),
        (0.05, 0.03, 0.07, 0.001, Verdict.WORSE),
        (0.05, -0.01, 0.11, 0.09, Verdict.UNDECIDED),
        (0.004, 0.003, 0.005, 0.001, Verdict.SAME),
        (0.004, -0.02, 0.03, 0.5, Verdict.UNDECIDED),
    ],
)
def test_the_words_for_losses(
    mean: float, low: float, high: float, p: float, word: Verdict
) -> None:
    found = Paired(4, mean, low, high, p)
    assert found.verdict(p, smallest=0.01, higher_is_better=False) is word


def test_more_keys_are_better() -> None:
    found = Paired(27, 0.2, 0.1, 0.3, 0.001)
    assert found.verdict(0.01, smallest=0.05, higher_is_better=True) is Verdict.BETTER


def test_a_slope_is_found_with_an_interval_that_holds_it() -> None:
    rng = np.random.default_rng(3)
    points = [(x, 2 * x + float(rng.normal(0, 0.1))) for x in np.linspace(0, 1, 30)]
    assert slope([0, 1], [1, 4]) == pytest.approx(3)
    assert slope([1, 1], [1, 4]) is None
    interval = slope_interval([points[:10], points[10:]])
    assert interval is not None
    assert interval[0] < 2 < interval[1]
    assert interval[1] - interval[0] < 0.5


def test_a_slope_over_single_models_of_their_kinds_has_no_interval() -> None:
    assert slope_interval([[(0.0, 1.0)], [(1.0, 2.0)]]) is None
    assert slope_interval([]) is None


def test_blocks_of_a_text_have_an_interval() -> None:
    rng = np.random.default_rng(5)
    values = rng.normal(1, 0.5, size=60)
    interval = block_interval(list(values))
    assert interval is not None
    half = 1.96 * values.std() / math.sqrt(60)
    assert interval == pytest.approx((values.mean() - half, values.mean() + half), abs=0.02)
    assert block_interval([1.0]) is None


def test_the_analysis_of_variance_finds_the_factor_that_acts() -> None:
    rng = np.random.default_rng(7)
    cells = [(base, head) for base in (500, 10_000, 100_000) for head in (16, 32, 64)] * 3
    values = [0.3 * (base == 500) + float(rng.normal(0, 0.05)) for base, _ in cells]
    base, head, both = main_effects(values, [b for b, _ in cells], [h for _, h in cells])
    assert base < 1e-4
    assert min(head, both) > 0.01
