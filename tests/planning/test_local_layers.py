"""Local layers keep their rotation, or the plan is refused by name."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from ggufext.errors import PlanError
from ggufext.header.architectures import Layout
from ggufext.planning.methods import Method
from ggufext.planning.plan import plan, plan_all_methods
from ggufext.planning.request import PlanRequest
from planning.facts import LLAMA_2, edits

if TYPE_CHECKING:
    from ggufext.header.facts import ModelFacts

GLOBAL = LLAMA_2.layers[0]
LOCAL = replace(GLOBAL, window=512, moves=False)
BASE_METHODS, SCALING_METHODS = (Method.GAMMA, Method.NTK), (Method.YARN, Method.LINEAR)


def model(**local: bool) -> ModelFacts:
    return replace(LLAMA_2, layers=(replace(LOCAL, **local), GLOBAL))


def refused(facts: ModelFacts, method: Method) -> str | None:
    try:
        plan(facts, PlanRequest(target_length=8192, method=method))
    except PlanError as error:
        return error.code
    return None


@pytest.mark.parametrize("method", list(BASE_METHODS))
def test_a_base_that_local_layers_would_follow_is_kept_for_them(method: Method) -> None:
    facts = model(follows_freq_base=True, freq_base_can_be_kept=True)
    written = edits(plan(facts, PlanRequest(target_length=8192, method=method)))
    assert written["rope.freq_base_swa"] == 10_000.0
    assert written["rope.freq_base"] != 10_000.0


@pytest.mark.parametrize("method", list(BASE_METHODS))
def test_a_base_that_cannot_be_kept_apart_is_refused(method: Method) -> None:
    assert refused(model(follows_freq_base=True), method) == "local_layers_would_change"


@pytest.mark.parametrize("method", list(SCALING_METHODS))
def test_scaling_that_reaches_local_layers_is_refused(method: Method) -> None:
    assert refused(model(follows_scaling=True), method) == "local_layers_would_change"
    kept = model(follows_freq_base=True, freq_base_can_be_kept=True)
    assert "rope.freq_base_swa" not in edits(
        plan(kept, PlanRequest(target_length=8192, method=method))
    )


def test_the_refusal_names_a_method_that_works() -> None:
    with pytest.raises(PlanError) as caught:
        plan(model(follows_freq_base=True), PlanRequest(target_length=8192))
    assert "method yarn leaves" in caught.value.message
    with pytest.raises(PlanError) as caught:
        plan(model(follows_freq_base=True, follows_scaling=True), PlanRequest(target_length=8192))
    assert "leaves them alone" not in caught.value.message


def test_force_accepts_that_local_layers_change() -> None:
    facts = model(follows_scaling=True)
    made = plan(facts, PlanRequest(target_length=8192, method=Method.LINEAR, force=True))
    assert edits(made)["rope.scaling.factor"] == 2.0


def test_where_nothing_moves_only_the_context_length_is_raised() -> None:
    facts = replace(LLAMA_2, layers=(LOCAL, replace(GLOBAL, rotates=False, moves=False)))
    (made,) = plan_all_methods(facts, PlanRequest(target_length=8192))
    assert edits(made) == {"context_length": 8192}
    assert made.freq_base.after == made.freq_base.before
    assert made.inv_freq == facts.inv_freq
    assert "only_context_length" in {warning.code for warning in made.warnings}


def test_a_base_that_llama_cpp_multiplies_is_written_divided() -> None:
    facts = replace(LLAMA_2, freq_base=40_000.0, freq_base_multiplier=4.0)
    made = plan(facts, PlanRequest(target_length=8192))
    assert made.freq_base.after == 80_000.0
    assert edits(made)["rope.freq_base"] == 20_000.0


@pytest.mark.parametrize(
    ("facts", "method", "code"),
    [
        (replace(LLAMA_2, scales_attention=True), Method.YARN, "attention_scaled"),
        (replace(LLAMA_2, layout=Layout.SECTIONS), Method.GAMMA, "vision_positions"),
    ],
)
def test_peculiarities_are_warned_of(facts: ModelFacts, method: Method, code: str) -> None:
    made = plan(facts, PlanRequest(target_length=8192, method=method))
    assert code in {warning.code for warning in made.warnings}
    assert code not in {
        warning.code
        for warning in plan(LLAMA_2, PlanRequest(target_length=8192, method=method)).warnings
    }
