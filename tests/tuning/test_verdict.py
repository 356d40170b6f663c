"""What is kept of made-up decisions, and the sentence that says why."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import pytest

from ggufext.audit.findings.results import Comparison, ComparisonTest
from ggufext.audit.findings.statistics import mcnemar_exact
from ggufext.comparison.results import CompareResult, Estimate, LossComparison
from ggufext.tuning.verdict import verdict

CLOSED, TUNED = "planned:yarn", "planned:searched"


def decided(
    gain: float,
    interval: tuple[float, float] | None,
    *,
    closed_alone: int = 0,
    tuned_alone: int = 0,
    control: float = 1.0,
    recommended: str | None = CLOSED,
) -> tuple[bool, str]:
    """Of how much lower the loss of the tuned scaling is, and the keys that one alone found."""
    p = mcnemar_exact(closed_alone, tuned_alone)
    made = SimpleNamespace(
        conditions=[SimpleNamespace(keys=[SimpleNamespace(accuracy=control)])],
        losses=[LossComparison(CLOSED, TUNED, Estimate(gain, interval))],
        keys=[
            Comparison(CLOSED, TUNED, closed_alone, tuned_alone, ComparisonTest.MCNEMAR, p),
        ],
        recommendation=SimpleNamespace(condition=recommended, reason="no extension needed"),
        request=SimpleNamespace(threshold=0.8),
        texts=("a", "b"),
    )
    return verdict(cast("CompareResult", made), CLOSED, TUNED)


def test_a_lower_loss_beyond_the_interval_is_kept() -> None:
    kept, why = decided(0.05, (0.01, 0.09), closed_alone=1, tuned_alone=3)
    assert kept
    assert "on 2 held-out texts" in why
    assert "is -0.050 nats a token against planned:yarn (95 %: -0.090 to -0.010)" in why
    assert "3 were found by it alone and 1 by planned:yarn alone (p = 0.62)" in why


@pytest.mark.parametrize("interval", [(-0.01, 0.11), (0.0, 0.1), None])
def test_what_may_be_chance_is_not_kept(interval: tuple[float, float] | None) -> None:
    assert not decided(0.05, interval)[0]


def test_a_lower_loss_that_finds_fewer_keys_is_not_kept() -> None:
    assert not decided(0.05, (0.01, 0.09), closed_alone=9)[0]


def test_more_keys_at_no_measured_loss_are_kept() -> None:
    assert decided(-0.01, (-0.03, 0.01), tuned_alone=9)[0]
    assert not decided(-0.05, (-0.09, -0.01), tuned_alone=9)[0]
    assert not decided(0.0, (-0.02, 0.02), tuned_alone=4)[0]


def test_keys_count_only_where_native_finds_them_as_trained() -> None:
    assert decided(0.05, (0.01, 0.09), closed_alone=9, control=0.5)[0]
    assert not decided(0.0, (-0.02, 0.02), tuned_alone=9, control=0.5)[0]


def test_nothing_is_kept_where_nothing_is_recommended() -> None:
    kept, why = decided(0.05, (0.01, 0.09), recommended=None)
    assert not kept
    assert why.startswith("no extension needed; on 2 held-out texts")
