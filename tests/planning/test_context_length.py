"""Raising context_length alone, and what publishers document as a plan."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ggufext.header.facts import Scaling
from ggufext.header.published import Published
from ggufext.planning.gamma import Verdict
from ggufext.planning.methods import Method
from ggufext.planning.plan import documented_plan, plan, plan_all_methods
from ggufext.planning.request import PlanRequest
from planning.facts import LLAMA_3, facts

#: Ollama and some converters write less than the model was trained on.
TOO_LOW = replace(
    facts(train_length=2048, freq_base=5e5), train_length=8192, train_length_source="--train-length"
)
QWEN3 = replace(
    facts(train_length=40960, freq_base=1e6, architecture="qwen3"),
    train_length=32768,
    published=Published("Qwen3", 32768, 1e6, 4.0, "https://example.org/qwen3"),
)


def written(made: object) -> list[tuple[str, object, object]]:
    return [(edit.key, edit.before, edit.after) for edit in made.edits]  # type: ignore[attr-defined]


@pytest.mark.parametrize("method", Method)
def test_a_target_that_training_covers_raises_context_length_only(method: Method) -> None:
    made = plan(TOO_LOW, PlanRequest(target_length=8192, method=method))
    assert made.method is Method.CONTEXT_LENGTH
    assert made.verdict is Verdict.NO_EXTENSION_NEEDED
    assert written(made) == [("llama.context_length", 2048, 8192)]
    assert made.tensor_edits == ()
    assert made.inv_freq == TOO_LOW.inv_freq


def test_it_is_what_plan_proposes_then() -> None:
    (made,) = plan_all_methods(TOO_LOW, PlanRequest(target_length=8192))
    assert made.method is Method.CONTEXT_LENGTH


def test_a_context_length_that_is_high_enough_stays() -> None:
    assert plan(TOO_LOW, PlanRequest(target_length=1024)).edits == ()
    assert plan(LLAMA_3, PlanRequest(target_length=8192)).edits == ()


def test_beyond_training_the_extension_starts_from_the_training_length() -> None:
    made = plan(TOO_LOW, PlanRequest(target_length=16384))
    assert (made.factor, made.freq_base.after) == (2.0, 1e6)


def test_by_name_it_raises_context_length_and_says_what_that_is_worth() -> None:
    made = plan(LLAMA_3, PlanRequest(target_length=65536, method=Method.CONTEXT_LENGTH))
    assert written(made) == [("llama.context_length", 8192, 65536)]
    assert made.gamma.effective == made.gamma.unscaled
    assert "rotation_not_extended" in {warning.code for warning in made.warnings}


def test_no_method_side_by_side_is_the_one_that_extends_nothing() -> None:
    methods = {made.method for made in plan_all_methods(LLAMA_3, PlanRequest(target_length=16384))}
    assert Method.CONTEXT_LENGTH not in methods


def test_yarn_without_an_original_length_gets_the_one_that_acts() -> None:
    scaled = replace(
        facts(train_length=131072, freq_base=1e6, scaling=Scaling("yarn", 4.0, None, 1.0, ())),
        train_length=262144,
    )
    made = plan(scaled, PlanRequest(target_length=262144))
    assert written(made) == [
        ("llama.context_length", 131072, 262144),
        ("llama.rope.scaling.original_context_length", None, 131072),
    ]


def test_the_documented_scaling_is_a_plan_of_its_own() -> None:
    made = documented_plan(QWEN3)
    assert made is not None
    assert (made.method, made.target_length, made.freq_scale_factor) == (Method.YARN, 131072, 4.0)
    assert made.original_length == 32768
    same = plan(QWEN3, PlanRequest(target_length=131072, method=Method.YARN))
    assert made.inv_freq == same.inv_freq


def test_the_documented_scaling_does_not_follow_a_given_training_length() -> None:
    made = documented_plan(replace(QWEN3, train_length=40960))
    assert made is not None
    assert (made.freq_scale_factor, made.original_length) == (4.0, 32768)


def test_without_documented_scaling_there_is_no_such_plan() -> None:
    said = Published("Nemo", 32768, None, None, "https://example.org/nemo")
    assert documented_plan(replace(QWEN3, published=said)) is None
    assert documented_plan(LLAMA_3) is None


def test_a_documented_scaling_that_the_file_cannot_take_is_none() -> None:
    scaling = Scaling("linear", 1.0, None, 1.3, ())
    assert documented_plan(replace(QWEN3, scaling=scaling)) is None


def test_a_base_that_is_not_the_familys_is_a_hint() -> None:
    usual = plan(QWEN3, PlanRequest(target_length=131072))
    assert "base_unusual" not in {warning.code for warning in usual.warnings}
    raised = replace(QWEN3, freq_base=4e6)
    made = plan(raised, PlanRequest(target_length=131072))
    assert made.freq_base.before == 4e6
    (hint,) = [warning for warning in made.warnings if warning.code == "base_unusual"]
    assert "files of Qwen3 say 1,000,000" in hint.message
