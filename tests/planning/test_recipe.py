"""The JSON that --recipe reads: one schema, checked field by field."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ggufext.errors import PlanError
from ggufext.planning.methods import Method
from ggufext.planning.request import Factors, Recipe, check_model, decode_recipe

positive = st.floats(min_value=1e-6, max_value=1e6)
factors = st.lists(positive, min_size=1, max_size=64).map(tuple)
recipes = st.one_of(
    st.builds(
        Recipe,
        method=st.just(Method.LONGROPE),
        target_length=st.none() | st.integers(1, 2**31 - 1),
        freq_base=st.none(),
        factors=st.builds(Factors, factors, st.none() | factors, st.none() | positive),
        facts_hash=st.none() | st.text(),
    ),
    st.builds(
        Recipe,
        method=st.sampled_from(Method),
        target_length=st.none() | st.integers(1, 2**31 - 1),
        freq_base=st.none() | positive,
        factors=st.none(),
        facts_hash=st.none() | st.text(),
    ),
)


@given(recipes)
def test_what_is_encoded_is_decoded(recipe: Recipe) -> None:
    assert decode_recipe(recipe.encode(evidence={"nll": [1.5]})) == recipe


def test_the_fields_are_those_of_tune_and_compare() -> None:
    document = json.loads(Recipe(Method.NTK).encode())
    assert set(document) == {"plan", "model", "evidence"}
    fields = {"method", "target_length", "freq_base", "short", "long", "attention_factor"}
    assert set(document["plan"]) == fields


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
        ({"plan": {"method": "ntk"}, "model": {"facts_hash": 1}}, "model.facts_hash"),
    ],
)
def test_a_field_that_is_wrong_is_named(document: Any, field: str | None) -> None:
    text = document if isinstance(document, str) else json.dumps(document)
    with pytest.raises(PlanError) as caught:
        decode_recipe(text)
    assert caught.value.code == "bad_recipe"
    assert caught.value.field == field


def test_a_recipe_of_another_model_is_refused() -> None:
    check_model(Recipe(Method.NTK), "sha256:1")
    check_model(Recipe(Method.NTK, facts_hash="sha256:1"), "sha256:1")
    with pytest.raises(PlanError) as caught:
        check_model(Recipe(Method.NTK, facts_hash="sha256:1"), "sha256:2")
    assert caught.value.code == "other_model"
