"""The JSON that --recipe reads: one schema, checked field by field."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ggufext.comparison.results import RecommendedPlan
from ggufext.errors import PlanError
from ggufext.planning.evidence import Evidence, Measurement
from ggufext.planning.methods import Method
from ggufext.planning.request import (
    Factors,
    PlanRequest,
    Recipe,
    YarnRecipe,
    check_model,
    decode_recipe,
)

if TYPE_CHECKING:
    from collections.abc import Callable

finite = st.floats(allow_nan=False, allow_infinity=False)
positive = st.floats(min_value=1e-6, max_value=1e6)
factors = st.lists(positive, min_size=1, max_size=64).map(tuple)
measurements = st.builds(
    Measurement,
    measure=st.text(),
    against=st.none() | st.text(),
    value=finite,
    interval=st.none() | st.tuples(finite, finite),
    n=st.integers(0, 10**9),
)
kept: dict[str, Any] = {
    "keep_short": st.booleans(),
    "train_length": st.none() | st.integers(1, 2**31 - 1),
    "train_freq_base": st.none() | positive,
    "evidence": st.none()
    | st.builds(
        Evidence,
        measurements=st.lists(measurements, max_size=4).map(tuple),
        texts=st.integers(0, 1000),
    ),
}
recipes = st.one_of(
    st.builds(
        Recipe,
        method=st.just(Method.LONGROPE),
        target_length=st.none() | st.integers(1, 2**31 - 1),
        freq_base=st.none(),
        factors=st.builds(Factors, factors, st.none() | factors, st.none() | positive),
        facts_hash=st.none() | st.text(),
        **kept,
    ),
    st.builds(
        Recipe,
        method=st.sampled_from(Method),
        target_length=st.none() | st.integers(1, 2**31 - 1),
        freq_base=st.none() | positive,
        factors=st.none(),
        facts_hash=st.none() | st.text(),
        **kept,
    ),
    st.builds(
        Recipe,
        method=st.just(Method.YARN),
        target_length=st.none() | st.integers(1, 2**31 - 1),
        yarn=st.builds(YarnRecipe, *[st.none() | positive] * 3).filter(YarnRecipe().__ne__),
        **kept,
    ),
)


@given(recipes)
def test_what_is_encoded_is_decoded(recipe: Recipe) -> None:
    assert decode_recipe(recipe.encode()) == recipe


def test_the_fields_are_those_of_tune_and_compare() -> None:
    document = json.loads(Recipe(Method.NTK).encode())
    assert set(document) == {"plan", "model", "evidence"}
    fields = {"method", "target_length", "freq_base", "short", "long", "attention_factor"}
    fields |= {"beta_fast", "beta_slow", "keep_short", "train_length", "train_freq_base"}
    assert (
        set(document["plan"])
        == fields
        == {each.name for each in dataclasses.fields(RecommendedPlan)}
    )


MEASURED = {"measure": "keys", "against": None, "value": 0.5, "interval": [0, 1], "n": 2}
EVIDENCE = {
    "tool": "ggufext compare 0.1.0",
    "llama_cpp": "0.5.0",
    "condition": "planned:ntk",
    "reason": "it is best",
    "texts": 1,
    "measurements": [MEASURED],
}


@pytest.mark.parametrize(
    "evidence",
    [
        None,
        "much",
        {"nll": [1.5]},
        EVIDENCE | {"texts": True},
        EVIDENCE | {"texts": -1},
        EVIDENCE | {"reason": "x" * 2001},
        EVIDENCE | {"measurements": {}},
        EVIDENCE | {"measurements": [MEASURED] * 33},
        EVIDENCE | {"measurements": [MEASURED | {"value": "0.5"}]},
        EVIDENCE | {"measurements": [MEASURED | {"value": float("nan")}]},
        EVIDENCE | {"measurements": [MEASURED | {"value": 10**400}]},
        EVIDENCE | {"measurements": [MEASURED | {"interval": [0, 1, 2]}]},
        EVIDENCE | {"measurements": [MEASURED | {"interval": "01"}]},
        EVIDENCE | {"measurements": [3]},
    ],
)
def test_what_is_no_evidence_is_left_out_and_the_plan_stays(evidence: object) -> None:
    recipe = decode_recipe(json.dumps({"plan": {"method": "ntk"}, "evidence": evidence}))
    assert recipe == Recipe(Method.NTK)
    known = decode_recipe(json.dumps({"plan": {"method": "ntk"}, "evidence": EVIDENCE}))
    assert known.evidence is not None
    assert known.evidence.measurements == (Measurement("keys", None, 0.5, (0.0, 1.0), 2),)


@pytest.mark.parametrize(
    "found",
    [
        {"plan": None, "recommendation": {"finding": "no_extension_needed", "reason": "fine"}},
        {"plan": None, "reason": "fine", "searched": []},
    ],
    ids=["compare", "tune"],
)
def test_a_measurement_that_recommends_nothing_says_why(found: dict[str, Any]) -> None:
    with pytest.raises(PlanError, match="recommends nothing to write: fine") as caught:
        decode_recipe(json.dumps(found))
    assert caught.value.code == "nothing_recommended"


@pytest.mark.parametrize(
    "changed",
    [{"target_length": 8192}, {"keep_short": True}, {"train_length": 99}, {"train_freq_base": 2.0}],
)
def test_evidence_is_for_what_was_measured_alone(changed: dict[str, Any]) -> None:
    document = {"plan": {"method": "ntk", "target_length": 4096}, "evidence": EVIDENCE}
    recipe = decode_recipe(json.dumps(document))
    request = PlanRequest(target_length=4096, method=Method.NTK, recipe=recipe)
    assert request.evidence == recipe.evidence is not None
    assert dataclasses.replace(request, **changed).evidence is None
    assert PlanRequest(target_length=4096).evidence is None


def test_long_factors_are_written_as_longrope_whatever_they_were_searched_from() -> None:
    recipe = decode_recipe(json.dumps({"plan": {"method": "gamma", "long": [1, 2]}}))
    assert recipe.method is Method.LONGROPE
    assert recipe.factors == Factors((1.0, 2.0))


@pytest.mark.parametrize(
    ("document", "field"),
    [
        ("{", None),
        ("[]", None),
        ("[" * 100_000, None),
        ({}, "plan"),
        ({"plan": []}, "plan"),
        ({"plan": {}}, "plan.method"),
        ({"plan": {"method": "magic"}}, "plan.method"),
        ({"plan": {"method": "dynamic"}}, "plan.method"),
        ({"plan": {"short": [1.0]}}, "plan.long"),
        ({"plan": {"attention_factor": 1.0}}, "plan.long"),
        ({"plan": {"method": "ntk", "attention_factor": 1.0}}, "plan.long"),
        ({"plan": {"method": "yarn", "attention_factor": 0}}, "plan.attention_factor"),
        ({"plan": {"method": "yarn", "beta_fast": "32"}}, "plan.beta_fast"),
        ({"plan": {"method": "yarn", "beta_slow": -1}}, "plan.beta_slow"),
        ({"plan": {"long": []}}, "plan.long"),
        ({"plan": {"long": 3}}, "plan.long"),
        ({"plan": {"long": [1, "2"]}}, "plan.long"),
        ({"plan": {"long": [1, True]}}, "plan.long"),
        ({"plan": {"long": [1, -2]}}, "plan.long"),
        ({"plan": {"long": [1, 10**400]}}, "plan.long"),
        ('{"plan": {"long": [1, NaN]}}', "plan.long"),
        ('{"plan": {"long": [1, Infinity]}}', "plan.long"),
        ({"plan": {"method": "ntk", "freq_base": 0}}, "plan.freq_base"),
        ({"plan": {"method": "ntk", "target_length": 1.5}}, "plan.target_length"),
        ({"plan": {"method": "ntk", "target_length": 0}}, "plan.target_length"),
        ({"plan": {"method": "ntk", "train_length": "1k"}}, "plan.train_length"),
        ({"plan": {"method": "ntk", "keep_short": 1}}, "plan.keep_short"),
        ({"plan": {"method": "ntk"}, "model": {"facts_hash": 1}}, "model.facts_hash"),
    ],
)
def test_a_field_that_is_wrong_is_named(document: Any, field: str | None) -> None:
    text = document if isinstance(document, str) else json.dumps(document)
    with pytest.raises(PlanError) as caught:
        decode_recipe(text)
    assert caught.value.code == "bad_recipe"
    assert caught.value.field == field


@pytest.mark.parametrize("value", [0.0, -1.0, 1e-45, float("nan"), float("inf")])
def test_what_no_file_can_hold_is_refused_from_python_too(value: float) -> None:
    made: list[tuple[str, Callable[[], object]]] = [
        ("long", lambda: Factors((1.0, value))),
        ("short", lambda: Factors((1.0,), (value,))),
        ("attention_factor", lambda: Factors((1.0,), None, value)),
        ("beta_fast", lambda: YarnRecipe(beta_fast=value)),
        ("beta_slow", lambda: YarnRecipe(beta_slow=value)),
        ("attention_factor", lambda: YarnRecipe(attention_factor=value)),
    ]
    for name, make in made:
        with pytest.raises(PlanError) as caught:
            make()
        assert (caught.value.code, caught.value.field) == ("bad_recipe", f"plan.{name}")


def test_a_recipe_of_another_model_is_refused() -> None:
    check_model(Recipe(Method.NTK), "sha256:1")
    check_model(Recipe(Method.NTK, facts_hash="sha256:1"), "sha256:1")
    with pytest.raises(PlanError) as caught:
        check_model(Recipe(Method.NTK, facts_hash="sha256:1"), "sha256:2")
    assert caught.value.code == "other_model"
