"""What is recommended of made-up results, and the sentence that says why."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ggufext.audit.findings.results import Comparison, ComparisonTest, LengthAccuracy
from ggufext.audit.findings.statistics import mcnemar_exact
from ggufext.comparison.recommendation import recommendation
from ggufext.comparison.results import (
    ComparedCondition,
    Estimate,
    Finding,
    LossComparison,
    Recommendation,
    ShortCost,
)

GAMMA, YARN, NTK = "planned:gamma", "planned:yarn", "planned:ntk"
KEYS = 40
FLAT = Estimate(0.0, (0.0, 0.0))


def recommended(
    beyond: dict[str, float],
    *,
    keys: dict[str, float] | None = None,
    short: dict[str, float] | None = None,
    spread: float = 0.02,
    trained: float = 1.0,
    knows_text: bool = True,
) -> Recommendation:
    """Of losses beyond the training length, shares of keys found there, and costs within it."""
    found, costs = keys or {}, short or {}

    def accuracy(name: str, length: int) -> LengthAccuracy:
        share = trained if length == 8192 else found.get(name, 1.0)
        return LengthAccuracy(length, share, (0.0, 1.0), KEYS, share)

    def between(values: dict[str, float]) -> list[LossComparison]:
        return [
            LossComparison(
                a,
                b,
                Estimate(
                    values[a] - values[b],
                    (values[a] - values[b] - spread, values[a] - values[b] + spread),
                ),
            )
            for a, b in combinations(beyond, 2)
        ]

    conditions = [
        ComparedCondition(
            name=name,
            texts=1,
            losses=(),
            beyond=Estimate(loss, None),
            keys=(accuracy(name, 8192), accuracy(name, 16384)),
            short_cost=None
            if name == "native"
            else ShortCost(Estimate(costs.get(name, 0.0), None), FLAT, FLAT, 1),
        )
        for name, loss in beyond.items()
    ]
    counts = {name: round(found.get(name, 1.0) * KEYS) for name in beyond}
    tests = [
        Comparison(
            a,
            b,
            only_a := max(counts[a] - counts[b], 0),
            only_b := max(counts[b] - counts[a], 0),
            ComparisonTest.MCNEMAR,
            mcnemar_exact(only_a, only_b),
        )
        for a, b in combinations(beyond, 2)
    ]
    within = between({name: costs.get(name, 0.0) for name in beyond})
    return recommendation(
        conditions,
        between(beyond),
        tests,
        within=within,
        threshold=0.8,
        knows_text=knows_text,
    )


def test_the_lowest_loss_beyond_its_interval_is_best_and_the_next_is_named() -> None:
    found = recommended({"native": 5.0, GAMMA: 3.1, YARN: 3.0}, keys={"native": 0.1})
    assert (found.finding, found.condition) == (Finding.BEST, YARN)
    assert found.reason == (
        "planned:yarn has the lowest loss beyond 8,192 tokens: that of planned:gamma, the next, is "
        "higher by +0.100 nats a token (95 %: +0.080 to +0.120), and finds 100 % of the keys there"
    )


def test_a_lower_loss_does_not_make_up_for_lost_keys() -> None:
    found = recommended(
        {"native": 5.0, GAMMA: 3.1, YARN: 3.0}, keys={"native": 0.1, YARN: 0.5, GAMMA: 0.9}
    )
    assert (found.finding, found.condition) == (Finding.BEST, GAMMA)
    assert found.reason == (
        "planned:gamma beyond 8,192 tokens: loss -1.900 nats a token (95 %: -1.920 to -1.880) "
        "against native, 90 % of the keys found, which is more than with planned:yarn"
    )


def test_keys_decide_nothing_where_native_does_not_find_them_as_trained() -> None:
    found = recommended(
        {"native": 5.0, GAMMA: 3.1, YARN: 3.0},
        keys={"native": 0.1, YARN: 0.0, GAMMA: 0.5},
        trained=0.2,
    )
    assert (found.finding, found.condition) == (Finding.BEST, YARN)
    assert "keys" not in found.reason


def test_within_the_interval_there_is_no_difference_and_the_cheaper_is_named() -> None:
    found = recommended(
        {"native": 5.0, GAMMA: 3.01, YARN: 3.0, NTK: 3.2},
        keys={"native": 0.1},
        short={GAMMA: 0.1, YARN: 0.01, NTK: 0.0},
    )
    assert (found.finding, found.condition) == (Finding.NO_DIFFERENCE, YARN)
    assert "no difference measured between planned:gamma, planned:yarn beyond" in found.reason
    assert "planned:ntk" not in found.reason


def test_the_default_is_named_where_nothing_speaks_against_it() -> None:
    found = recommended(
        {"native": 5.0, GAMMA: 3.01, YARN: 3.0},
        keys={"native": 0.1},
        short={GAMMA: 0.015, YARN: 0.01},
    )
    assert (found.finding, found.condition) == (Finding.NO_DIFFERENCE, GAMMA)
    assert "the default" in found.reason


def test_no_extension_is_needed_where_native_loses_nothing() -> None:
    found = recommended({"native": 3.0, GAMMA: 3.1, YARN: 3.01})
    assert (found.finding, found.condition) == (Finding.NO_EXTENSION_NEEDED, None)
    assert "native still finds 100 % of the keys at 16,384 tokens" in found.reason


@pytest.mark.parametrize("lost", [{"native": 0.5}, {"native": 0.75}])
def test_lost_keys_alone_ask_for_an_extension(lost: dict[str, float]) -> None:
    found = recommended({"native": 3.0, GAMMA: 3.1}, keys=lost)
    assert (found.finding, found.condition) == (Finding.BEST, GAMMA)


def test_a_higher_loss_alone_asks_for_an_extension() -> None:
    found = recommended({"native": 3.1, GAMMA: 3.0})
    assert (found.finding, found.condition) == (Finding.BEST, GAMMA)


def test_without_native_or_an_extension_nothing_is_said() -> None:
    assert recommended({"native": 3.1}).finding is Finding.NOTHING_MEASURED
    assert recommended({"native": 3.1, "file": 3.0}).finding is Finding.NOTHING_MEASURED


def test_nothing_is_said_of_a_model_that_neither_knows_the_text_nor_finds_keys() -> None:
    losses = {"native": 9.0, GAMMA: 8.0}
    found = recommended(losses, trained=0.1, knows_text=False)
    assert (found.finding, found.condition) == (Finding.NOTHING_MEASURED, None)
    assert "does not know the text" in found.reason
    assert recommended(losses, keys={"native": 0.1}, knows_text=False).condition == GAMMA


@given(
    st.dictionaries(st.sampled_from([GAMMA, YARN, NTK]), st.floats(1, 5), min_size=1),
    st.floats(1, 5),
    st.floats(0, 1),
)
def test_what_is_recommended_is_never_measured_to_be_worse_than_another_that_finds_as_much(
    losses: dict[str, float], native: float, spread: float
) -> None:
    found = recommended({"native": native, **losses}, keys={"native": 0.0}, spread=spread)
    assert found.condition is not None
    assert losses[found.condition] - min(losses.values()) <= spread
