"""Ranges, curves and exponents of made attention, whose law is known."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest

from ggufext.attention.fit import curves, distance_edges, mean_log

Array = npt.NDArray[np.float64]

EDGES = distance_edges(1024)
ROWS = 64


def power_law(gamma: float, edges: tuple[int, ...] = EDGES) -> Array:
    """Sums of attention over ranges that falls with d^(−γ), tokens one by one."""
    return np.array([sum(d**-gamma for d in range(a, b)) for a, b in pairwise(edges)])


def sums(
    *heads: Array, rows: int = ROWS, noise: float = 0.0, itself: float = 0.1, sink: float = 0.2
) -> Array:
    """Rows of attention whose sums over ranges are those of the heads."""
    dice = np.random.default_rng(1)
    made = np.empty((rows, len(heads), len(heads[0]) + 3))
    made[:, :, 1:-2] = np.stack(heads) * np.exp(
        noise * dice.standard_normal((rows, len(heads), len(heads[0])))
    )
    made[:, :, 0], made[:, :, -2], made[:, :, -1] = itself, 0.3, sink
    return made


@pytest.mark.parametrize("largest", [24, 64, 128, 1000, 4096, 16_384])
def test_ranges_cover_every_distance_once_and_widen_with_it(largest: int) -> None:
    edges = distance_edges(largest)
    assert (edges[0], edges[-1]) == (1, largest + 1)
    widths = [b - a for a, b in pairwise(edges)]
    assert min(widths) >= 1
    # Rounding to whole distances makes a width one less than the one before at most.
    assert all(b >= a - 1 for a, b in pairwise(widths))
    assert 10 <= len(widths) <= 24
    if largest >= 1000:
        assert len(widths) >= 18


def test_the_place_of_a_range_is_the_mean_of_its_logarithms() -> None:
    for start, end in [(1, 2), (3, 5), (100, 137)]:
        mean = sum(map(math.log, range(start, end))) / (end - start)
        assert mean_log(start, end) == pytest.approx(mean)


@pytest.mark.parametrize("gamma", [-0.7, 0.0, 0.3, 0.94, 1.0, 2.5])
def test_the_exponent_of_a_power_law_is_recovered(gamma: float) -> None:
    (head, mean) = curves(sums(power_law(gamma)), EDGES, 0)
    assert head == mean
    for decay in (head.decay, head.near, head.far):
        assert decay is not None
        assert decay.gamma == pytest.approx(gamma, abs=0.01)
        assert decay.interval == pytest.approx((decay.gamma, decay.gamma))
        assert decay.r_squared > 0.999 or gamma == 0
    assert head.decay is not None
    assert (head.decay.first, head.decay.last) == (1, 1024)
    assert head.near is not None
    assert head.far is not None
    assert head.near.first == 1
    assert head.near.last + 1 == head.far.first
    assert head.far.last == 1024


def test_a_law_that_changes_has_another_exponent_near_than_far() -> None:
    half = len(EDGES) // 2
    border = EDGES[half]
    bent = [
        sum(d**-1.5 if d < border else border**-1.2 * d**-0.3 for d in range(a, b))
        for a, b in pairwise(EDGES)
    ]
    (head, _) = curves(sums(np.array(bent)), EDGES, 0)
    assert head.near is not None
    assert head.far is not None
    assert head.near.gamma == pytest.approx(1.5, abs=0.05)
    assert head.far.gamma == pytest.approx(0.3, abs=0.05)


def test_the_mean_curve_weighs_every_head_alike() -> None:
    one, two = power_law(0.5), power_law(1.5)
    (*heads, mean) = curves(sums(one, two), EDGES, 0)
    assert len(heads) == 2
    wanted = (one + two) / 2 / np.diff(EDGES)
    assert mean.attention == pytest.approx(wanted)
    assert (mean.itself, mean.beyond, mean.sink) == pytest.approx((0.1, 0.3, 0.2))


def test_intervals_hold_the_exponent_about_as_often_as_they_say() -> None:
    held = 0
    for trial in range(100):
        dice = np.random.default_rng(trial)
        made = sums(power_law(0.9))
        made[:, :, 1:-2] *= dice.lognormal(sigma=0.5, size=made[:, :, 1:-2].shape)
        (head, _) = curves(made, EDGES, trial)
        assert head.decay is not None
        assert head.decay.interval is not None
        low, high = head.decay.interval
        held += low <= 0.9 <= high
    assert 85 <= held <= 100


def test_noise_that_neighbouring_rows_share_widens_the_interval() -> None:
    def width(made: Array) -> float:
        (head, _) = curves(made, EDGES, 0)
        assert head.decay is not None
        assert head.decay.interval is not None
        return head.decay.interval[1] - head.decay.interval[0]

    dice = np.random.default_rng(3)
    slopes = dice.normal(scale=0.3, size=ROWS // 8)
    shared, single = sums(power_law(0.9)), sums(power_law(0.9))
    x = np.arange(len(EDGES) - 1) / len(EDGES)
    shared[:, 0, 1:-2] *= np.exp(np.outer(np.repeat(slopes, 8), x))
    single[:, 0, 1:-2] *= np.exp(np.outer(np.tile(slopes, 8), x))
    assert width(shared) > 3 * width(single)


def test_ranges_without_attention_are_left_out_of_the_fit() -> None:
    seen = power_law(0.8)
    seen[15:] = 0
    (head, _) = curves(sums(seen), EDGES, 0)
    assert head.decay is not None
    assert head.decay.last == EDGES[15] - 1
    assert head.decay.gamma == pytest.approx(0.8, abs=0.01)
    assert head.attention[15:] == (0.0,) * (len(EDGES) - 16)


def test_nothing_is_fitted_to_too_few_ranges() -> None:
    seen = power_law(0.8)
    seen[3:] = 0
    (head, _) = curves(sums(seen), EDGES, 0)
    assert (head.decay, head.near, head.far) == (None, None, None)


def test_an_interval_is_not_drawn_where_a_resample_may_see_nothing() -> None:
    made = sums(power_law(0.8))
    made[1:, :, 5] = 0
    (head, _) = curves(made, EDGES, 0)
    assert head.decay is not None
    assert head.decay.interval is None


def test_the_same_seed_draws_the_same_interval() -> None:
    made = sums(power_law(0.8), noise=0.5)
    assert curves(made, EDGES, 5) == curves(made, EDGES, 5)
    assert curves(made, EDGES, 5) != curves(made, EDGES, 6)
