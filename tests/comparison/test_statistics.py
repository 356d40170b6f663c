"""Intervals of means over texts hold the truth as often as they say; distances of distributions."""

from __future__ import annotations

import math
import random
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ggufext.comparison.statistics import TEXTS_DRAWN, divergence, mean_interval
from ggufext.comparison.texts import blocks

VALUES = st.lists(st.floats(-10, 10), min_size=1, max_size=30)


def coverage(texts: int, values: int, *, between: float, drawn: bool, runs: int = 200) -> float:
    """Share of simulated runs whose interval holds the true mean: of all texts, or of these."""
    rng = random.Random(f"{texts}/{values}/{between}")
    held = 0
    for run in range(runs):
        centres = [rng.gauss(0, between) for _ in range(texts)]
        sample = [[rng.gauss(centre, 1) for _ in range(values)] for centre in centres]
        _, interval = mean_interval(sample, seed=run)
        assert interval is not None
        truth = 0.0 if drawn else math.fsum(centres) / texts
        held += interval[0] <= truth <= interval[1]
    return held / runs


@pytest.mark.parametrize(("texts", "values"), [(1, 20), (1, 60), (3, 20)])
def test_an_interval_of_few_texts_holds_their_own_mean(texts: int, values: int) -> None:
    assert 0.91 <= coverage(texts, values, between=1, drawn=False) <= 0.99


@pytest.mark.parametrize(("texts", "low"), [(TEXTS_DRAWN, 0.85), (10, 0.91)])
def test_an_interval_of_many_texts_holds_the_mean_of_all_texts(texts: int, low: float) -> None:
    assert low <= coverage(texts, 20, between=1, drawn=True) <= 0.99


def test_texts_that_do_not_differ_make_an_interval_too_wide_rather_than_too_narrow() -> None:
    assert coverage(10, 20, between=0, drawn=True) >= 0.95


@given(VALUES, st.integers(0, 100))
def test_the_mean_lies_in_its_interval_and_is_that_of_the_values(
    values: list[float], seed: int
) -> None:
    mean, interval = mean_interval([values], seed=seed)
    assert mean == pytest.approx(math.fsum(values) / len(values))
    assert (interval is None) == (len(values) == 1)


def test_every_text_counts_the_same_whatever_its_values() -> None:
    assert mean_interval([[1.0] * 50, [3.0]], seed=0) == (2.0, (2.0, 2.0))


def test_the_same_seed_draws_the_same_interval() -> None:
    values = [[1.0, 2.0, 5.0], [2.0, 2.5, 7.0]]
    assert mean_interval(values, seed=1) == mean_interval(values, seed=1)
    assert mean_interval(values, seed=1) != mean_interval(values, seed=2)


@given(st.lists(st.floats(-10, 10), max_size=700))
def test_blocks_share_the_values_evenly_and_keep_their_mean(values: list[float]) -> None:
    found = blocks(values)
    if not values:
        assert found == ()
        return
    count = len(found)
    sizes = [
        end - start
        for start, end in pairwise(len(values) * index // count for index in range(count + 1))
    ]
    assert max(sizes) - min(sizes) <= 1
    total = math.fsum(size * mean for size, mean in zip(sizes, found, strict=True))
    assert total == pytest.approx(math.fsum(values), abs=1e-9)
    assert count >= min(8, max(len(values) // 8, 1))


def logs(rows: npt.NDArray[np.float64]) -> bytes:
    shares = rows / rows.sum(axis=1, keepdims=True)
    return bytes(np.log(shares).astype(np.float32).tobytes())


def test_divergence_is_that_of_the_definition() -> None:
    rng = np.random.default_rng(0)
    p, q = rng.random((5, 40)) + 1e-3, rng.random((5, 40)) + 1e-3
    far, same = divergence(logs(p), logs(q), 40)
    p, q = p / p.sum(axis=1, keepdims=True), q / q.sum(axis=1, keepdims=True)
    for a, b, found, agree in zip(p, q, far, same, strict=True):
        wanted = math.fsum(x * math.log(x / y) for x, y in zip(a, b, strict=True))
        assert found == pytest.approx(wanted, abs=1e-6)
        assert agree == (max(range(40), key=a.__getitem__) == max(range(40), key=b.__getitem__))


def test_a_distribution_is_at_no_distance_from_itself() -> None:
    rows = logs(np.random.default_rng(1).random((3, 10)) + 1e-3)
    assert divergence(rows, rows, 10) == ([0.0] * 3, [True] * 3)
