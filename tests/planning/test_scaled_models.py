"""Lengths and combinations that a model's own scaling decides: what is written, and what stays."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from ggufext.errors import PlanError
from ggufext.header.architectures import FactorSupport
from ggufext.header.facts import ModelFacts, Scaling
from ggufext.header.frequencies import (
    ROPE_FACTORS_LONG,
    ROPE_FACTORS_SHORT,
    Yarn,
    inverse_frequencies,
)
from ggufext.planning.emit import Engine, emit
from ggufext.planning.gamma import Verdict, gamma_pade
from ggufext.planning.methods import Method
from ggufext.planning.plan import plan, plan_all_methods
from ggufext.planning.request import PlanRequest
from planning.facts import LLAMA_2, edits, facts, tensors

if TYPE_CHECKING:
    from ggufext.planning.result import Plan

LONG = tuple(1.0 + 7.0 * i / 47 for i in range(48))
SHORT = tuple(1.0 + i / 47 for i in range(48))
CODER = facts(train_length=16384, freq_base=1e5, scaling=Scaling("linear", 4.0, None, 1.0, ()))
QWEN = facts(
    architecture="qwen3",
    train_length=131072,
    freq_base=1e6,
    scaling=Scaling("yarn", 4.0, None, 1.0, ()),
)


def phi3(*, context: int, original: int | None) -> ModelFacts:
    tensors = (ROPE_FACTORS_LONG, ROPE_FACTORS_SHORT)
    return facts(
        architecture="phi3",
        train_length=context,
        freq_base=1e4,
        rotary_dim=96,
        scaling=Scaling("longrope", 1.0, original, 1.0, tensors),
        factors={ROPE_FACTORS_LONG: LONG, ROPE_FACTORS_SHORT: SHORT},
        factor_support=FactorSupport.LONG_SHORT,
    )


def trained_on(model: ModelFacts, length: int) -> ModelFacts:
    """The facts under --train-length."""
    return replace(model, train_length=length, train_length_source="--train-length")


def messages(made: Plan) -> dict[str, str]:
    return {warning.code: warning.message for warning in made.warnings}


@pytest.mark.parametrize("method", [Method.GAMMA, Method.YARN, Method.LINEAR])
def test_long_factors_that_the_target_does_not_reach_leave_context_length_alone_to_raise(
    method: Method,
) -> None:
    made = plan(phi3(context=2048, original=4096), PlanRequest(target_length=4096, method=method))
    assert edits(made) == {"context_length": 4096}
    assert made.tensor_edits == ()
    assert made.verdict is Verdict.NO_EXTENSION_NEEDED
    expected = [w / f for w, f in zip(inverse_frequencies(1e4, 96), SHORT, strict=True)]
    assert made.inv_freq == pytest.approx(expected)


def test_above_the_original_length_the_method_starts_from_there() -> None:
    made = plan(
        phi3(context=2048, original=4096), PlanRequest(target_length=8192, method=Method.LINEAR)
    )
    assert made.factor == 2.0
    assert tensors(made)[ROPE_FACTORS_LONG] == pytest.approx([2.0 * f for f in SHORT])
    assert "rope.scaling.original_context_length" not in edits(made)


def test_a_shorter_training_length_moves_the_border_of_the_long_factors() -> None:
    shorter = trained_on(phi3(context=4096, original=4096), 1024)
    made = plan(shorter, PlanRequest(target_length=2048, method=Method.LINEAR))
    assert edits(made)["rope.scaling.original_context_length"] == 1024
    assert tensors(made)[ROPE_FACTORS_LONG] == pytest.approx([2.0 * f for f in SHORT])


def test_an_original_length_of_0_makes_the_long_factors_act_at_every_length() -> None:
    made = plan(
        phi3(context=8192, original=0), PlanRequest(target_length=16384, method=Method.LINEAR)
    )
    assert "rope.scaling.original_context_length" not in edits(made)
    assert tensors(made) == {ROPE_FACTORS_LONG: pytest.approx([2.0 * f for f in LONG])}
    assert not made.keep_short
    assert "in every context" in messages(made)["new_long_factors"]


def test_keep_short_gives_the_factors_that_act_today_to_short_contexts() -> None:
    made = plan(
        phi3(context=8192, original=0),
        PlanRequest(target_length=16384, method=Method.LINEAR, keep_short=True),
    )
    assert edits(made)["rope.scaling.original_context_length"] == 8192
    assert tensors(made)[ROPE_FACTORS_SHORT] == LONG
    assert tensors(made)[ROPE_FACTORS_LONG] == pytest.approx([2.0 * f for f in LONG])
    assert made.keep_short


def test_long_factors_without_an_original_length_keep_the_border_that_acts() -> None:
    longer = trained_on(phi3(context=4096, original=None), 131072)
    made = plan(longer, PlanRequest(target_length=262144, method=Method.LINEAR))
    assert edits(made)["rope.scaling.original_context_length"] == 4096
    assert tensors(made)[ROPE_FACTORS_LONG] == pytest.approx([2.0 * f for f in LONG])


@pytest.mark.parametrize("method", list(Method))
def test_a_plan_within_the_training_length_keeps_the_trained_scaling(method: Method) -> None:
    made = plan(CODER, PlanRequest(target_length=4096, method=method))
    assert (made.edits, made.tensor_edits) == ((), ())
    assert made.freq_scale_factor == 4.0
    assert made.scaling_type == "linear"
    assert made.inv_freq == pytest.approx([w / 4.0 for w in CODER.inv_freq])
    assert made.gamma.effective == pytest.approx(gamma_pade(4e5, 4096))


def test_within_the_training_length_yarn_and_its_attention_stay() -> None:
    made = plan(QWEN, PlanRequest(target_length=65536))
    assert (made.freq_scale_factor, made.scaling_type, made.original_length) == (4, "yarn", 131072)
    assert made.attention_factor == pytest.approx(1.0 + 0.1 * math.log(4.0))


def test_a_training_length_that_covers_the_target_raises_context_length_alone() -> None:
    made = plan(trained_on(LLAMA_2, 32768), PlanRequest(target_length=32768))
    assert edits(made) == {"context_length": 32768}
    assert made.freq_base.after == 1e4


def test_raising_context_length_does_not_move_where_yarn_starts() -> None:
    made = plan(trained_on(QWEN, 262144), PlanRequest(target_length=262144))
    assert edits(made) == {
        "context_length": 262144,
        "rope.scaling.original_context_length": 131072,
    }


def test_a_shorter_training_length_is_where_scaling_without_an_original_length_starts() -> None:
    made = plan(trained_on(QWEN, 32768), PlanRequest(target_length=262144, method=Method.YARN))
    assert made.freq_scale_factor == 8.0
    assert edits(made)["rope.scaling.original_context_length"] == 32768
    assert made.inv_freq == pytest.approx(
        plan(
            facts(train_length=32768, freq_base=1e6),
            PlanRequest(target_length=262144, method=Method.YARN),
        ).inv_freq
    )
    assert "takes its place" in messages(made)["scaling_replaced"]
    assert "native_scaling" not in messages(made)


@pytest.mark.parametrize("original", [None, 4096])
def test_the_same_holds_for_linear(original: int | None) -> None:
    model = replace(CODER, scaling=replace(CODER.scaling, original_context_length=original))
    made = plan(trained_on(model, 4096), PlanRequest(target_length=65536, method=Method.LINEAR))
    assert made.freq_scale_factor == 16.0
    rebased = plan(trained_on(model, 4096), PlanRequest(target_length=65536))
    assert edits(rebased)["rope.scaling.type"] == "none"
    assert edits(rebased)["rope.freq_base"] == 1.6e6


@pytest.mark.parametrize(("method", "exponent"), [(Method.GAMMA, 1.0), (Method.NTK, 128 / 126)])
def test_base_methods_keep_the_trained_linear_factor(method: Method, exponent: float) -> None:
    made = plan(CODER, PlanRequest(target_length=65536, method=method))
    base = 1e5 * 4.0**exponent
    assert made.freq_base.after == pytest.approx(base)
    assert (made.scaling_type, made.freq_scale_factor) == ("linear", 4.0)
    expected = [w / 4.0 for w in inverse_frequencies(made.freq_base.after, 128)]
    assert made.inv_freq == pytest.approx(expected, rel=1e-12)
    assert not {"rope.scaling.type", "rope.scaling.factor"} & edits(made).keys()
    assert made.gamma.effective == pytest.approx(made.gamma.native)


def test_a_wanted_gamma_counts_the_trained_factor() -> None:
    made = plan(CODER, PlanRequest(target_length=65536, gamma=0.95))
    assert made.gamma.effective == 0.95
    assert gamma_pade(made.freq_base.after * 4.0, 65536) == pytest.approx(0.95, rel=1e-6)


def test_linear_without_training_is_never_called_healthy() -> None:
    for keep_short in (False, True):
        model = replace(LLAMA_2, factor_support=FactorSupport.BY_TYPE)
        for made in plan_all_methods(model, PlanRequest(target_length=8192, keep_short=keep_short)):
            finds_nothing = "linear_needs_finetuning" in messages(made)
            assert finds_nothing == (made.method is Method.LINEAR)
            assert (made.verdict is Verdict.NEEDS_FINETUNE) == finds_nothing


@pytest.mark.parametrize(("base", "said"), [(1e4, True), (1e6, False)])
def test_a_gamma_that_is_degraded_in_training_already_is_said_to_describe_nothing(
    base: float, said: bool
) -> None:
    made = plan(facts(train_length=16384, freq_base=base), PlanRequest(target_length=32768))
    found = messages(made).get("gamma_not_defined", "")
    assert ("γ is -0.073 at 16,384 tokens already" in found) == said


@pytest.mark.parametrize("method", [Method.YARN, Method.LINEAR, Method.GAMMA])
def test_a_factor_below_1_is_extended_as_llama_cpp_reads_it(method: Method) -> None:
    shrunk = replace(CODER, scaling=replace(CODER.scaling, factor=0.25))
    if method is Method.YARN:
        with pytest.raises(PlanError):
            plan(shrunk, PlanRequest(target_length=32768, method=method))
        return
    made = plan(shrunk, PlanRequest(target_length=32768, method=method))
    assert made.freq_scale_factor == (0.5 if method is Method.LINEAR else 0.25)
    assert made.inv_freq[0] == pytest.approx(1.0 / made.freq_scale_factor)


@pytest.mark.parametrize("method", list(Method)[:5])
def test_keep_short_is_refused_with_advice_that_works(method: Method) -> None:
    for found in (LLAMA_2, CODER, QWEN):
        model = replace(found, factor_support=FactorSupport.NONE)
        with pytest.raises(PlanError) as caught:
            plan(model, PlanRequest(target_length=262144, method=method, keep_short=True))
        assert "leave out --keep-short" in caught.value.message
        assert "choose --method" not in caught.value.message


MINISTRAL = facts(
    architecture="mistral3",
    train_length=65536,
    freq_base=1e6,
    scaling=Scaling("yarn", 16.0, 4096, 1.0, (), Yarn(beta_fast=4.0)),
)


def emitted(model: ModelFacts, engine: Engine) -> Any:
    return emit(
        plan(model, PlanRequest(target_length=131072, method=Method.YARN)), model, engine, model="m"
    )


def test_betas_are_in_the_blocks_of_other_programs() -> None:
    for engine in (Engine.HF, Engine.VLLM):
        text = emitted(MINISTRAL, engine).blocks[0].text
        assert '"beta_fast": 4.0' in text
        assert '"beta_slow": 1.0' in text
    usual = replace(MINISTRAL, scaling=replace(MINISTRAL.scaling, yarn=Yarn()))
    assert "beta" not in emitted(usual, Engine.HF).blocks[0].text


def test_mscale_and_temperature_are_in_the_block_or_the_plan_is_not_expressible() -> None:
    yarn = Yarn(mscale_all_dim=1.0)
    scaled = replace(MINISTRAL, scaling=replace(MINISTRAL.scaling, yarn=yarn))
    scaled = replace(scaled, temperature_scale=0.1, original_length_acts=True)
    made = plan(scaled, PlanRequest(target_length=131072, method=Method.YARN))
    assert made.attention_factor == 1.0
    text = emitted(scaled, Engine.HF).blocks[0].text
    assert '"mscale": 1.0' in text
    assert '"mscale_all_dim": 1.0' in text
    assert '"llama_4_scaling_beta": 0.1' in text
    assert "rewrite the GGUF file" in emitted(scaled, Engine.VLLM).not_expressible
    elsewhere = replace(scaled, original_length_acts=False)
    assert "temperature_length" in emitted(elsewhere, Engine.HF).not_expressible


@pytest.mark.parametrize(
    ("yarn", "says"),
    [(Yarn(mscale=0.707, mscale_all_dim=0.707), None), (Yarn(), "every score of attention by")],
)
def test_scores_of_latent_attention_are_compared_with_those_of_transformers(
    yarn: Yarn, says: str | None
) -> None:
    latent = replace(MINISTRAL, scaling=replace(MINISTRAL.scaling, yarn=yarn))
    found = emitted(replace(latent, scales_attention=True), Engine.HF).not_expressible
    assert found is None if says is None else says in found


def test_where_temperature_starts_stays_whatever_is_planned() -> None:
    model = replace(
        facts(architecture="mistral3", train_length=65536, freq_base=1e6),
        temperature_scale=0.1,
        original_length_acts=True,
    )
    for method in (Method.GAMMA, Method.YARN, Method.LINEAR):
        made = plan(trained_on(model, 32768), PlanRequest(target_length=131072, method=method))
        assert edits(made)["rope.scaling.original_context_length"] == 65536
