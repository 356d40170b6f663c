from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

import passkey_task as task
from retrieval import Cell, Score, is_hit, pooled, wilson_interval


@pytest.mark.parametrize(
    ("hits", "trials", "low", "high"),
    [
        (20, 20, 0.8389, 1.0),
        (35, 35, 0.9011, 1.0),
        (0, 20, 0.0, 0.1611),
        (15, 20, 0.5313, 0.8881),
    ],
)
def test_wilson_interval_has_the_published_values(
    hits: int, trials: int, low: float, high: float
) -> None:
    assert wilson_interval(hits, trials) == pytest.approx((low, high), abs=5e-5)


@given(trials=st.integers(1, 1000), data=st.data())
def test_wilson_interval_holds_the_share_and_stays_in_bounds(
    trials: int, data: st.DataObject
) -> None:
    hits = data.draw(st.integers(0, trials))
    low, high = wilson_interval(hits, trials)
    assert 0 <= low <= hits / trials + 1e-12
    assert hits / trials - 1e-12 <= high <= 1


@pytest.mark.parametrize(
    ("answer", "hit"),
    [
        (" {key}", True),
        (" {key}. The", True),
        (" the {key}", True),
        (" 1{key}", False),
        (" 7 {key}", False),
        (" pass", False),
    ],
)
def test_hit_is_a_first_integer_equal_to_the_key(answer: str, hit: bool) -> None:
    prompt = task.passkey_prompt(random.Random(1), length=64, depth=0.5)
    assert is_hit(prompt, answer.format(key=prompt.key)) is hit


def test_scores_pool_the_depths_of_a_length() -> None:
    cells = [Cell(64, 0.25, 3, 10), Cell(64, 0.75, 9, 10), Cell(128, 0.5, 1, 10)]
    assert pooled(cells) == [Score(64, 12, 20), Score(128, 1, 10)]
