"""Methods that need factor tensors, and --keep-short, on models without scaling of their own."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from ggufext.errors import PlanError
from ggufext.header.architectures import FactorSupport
from ggufext.header.frequencies import ROPE_FACTORS_LONG, ROPE_FACTORS_SHORT, ROPE_FREQS
from ggufext.planning.methods import Method, as_float32
from ggufext.planning.plan import plan, plan_all_methods
from ggufext.planning.request import Factors, PlanRequest, Recipe
from planning.facts import LLAMA_2, codes, edits, facts, tensors

if TYPE_CHECKING:
    from ggufext.header.facts import ModelFacts

MODEL = replace(LLAMA_2, factor_support=FactorSupport.BY_TYPE)
LONG = tuple(1.0 + i / 2 for i in range(64))


def recipe(factors: Factors) -> Recipe:
    return Recipe(Method.LONGROPE, factors=factors)


def refused_code(model: ModelFacts = MODEL, **request: object) -> str:
    with pytest.raises(PlanError) as caught:
        plan(model, PlanRequest(**request))  # type: ignore[arg-type]
    return caught.value.code


def test_llama3_writes_rope_freqs_and_no_factor() -> None:
    made = plan(MODEL, PlanRequest(target_length=32768, method=Method.LLAMA3))
    factors = tensors(made)[ROPE_FREQS]
    assert factors[0] == 1.0
    assert factors[-1] == 8.0
    assert edits(made) == {
        "context_length": 32768,
        "rope.scaling.type": "none",
        "rope.scaling.original_context_length": 4096,
    }
    assert made.inv_freq[-1] == MODEL.inv_freq[-1] / 8.0


def test_longrope_writes_both_sets_and_the_attention_factor() -> None:
    short = (1.5,) * 64
    made = plan(
        MODEL,
        PlanRequest(
            target_length=32768,
            method=Method.LONGROPE,
            recipe=Recipe(Method.LONGROPE, factors=Factors(LONG, short, 1.25)),
        ),
    )
    assert tensors(made) == {ROPE_FACTORS_LONG: LONG, ROPE_FACTORS_SHORT: short}
    assert edits(made) == {
        "context_length": 32768,
        "rope.scaling.type": "longrope",
        "rope.scaling.original_context_length": 4096,
        "rope.scaling.attn_factor": 1.25,
    }


def test_longrope_attention_is_that_of_the_paper_where_the_factors_say_nothing() -> None:
    phi = facts(train_length=4096, freq_base=1e4, factor_support=FactorSupport.LONG_SHORT)
    made = plan(
        phi,
        PlanRequest(
            target_length=131072,
            method=Method.LONGROPE,
            recipe=recipe(Factors(LONG)),
        ),
    )
    assert made.attention_factor == pytest.approx(1.19024, abs=1e-5)


def test_a_factor_key_that_would_act_beside_long_factors_is_neutralised() -> None:
    stale = replace(
        MODEL,
        has_scaling_factor=True,
        metadata=tuple(
            (key, 2.0 if key.endswith("scaling.factor") else value) for key, value in MODEL.metadata
        ),
        scaling=replace(MODEL.scaling, type="none", factor=2.0),
    )
    assert (
        edits(plan(stale, PlanRequest(target_length=8192, keep_short=True)))["rope.scaling.factor"]
        == 1.0
    )
    # Type none, which stays, switches it off.
    llama3 = plan(stale, PlanRequest(target_length=8192, method=Method.LLAMA3))
    assert "rope.scaling.factor" not in edits(llama3)


@pytest.mark.parametrize("method", [Method.GAMMA, Method.NTK, Method.LINEAR, Method.LLAMA3])
def test_keep_short_has_the_frequencies_of_the_method_as_long_factors(method: Method) -> None:
    plain = plan(MODEL, PlanRequest(target_length=32768, method=method))
    kept = plan(MODEL, PlanRequest(target_length=32768, method=method, keep_short=True))
    assert kept.inv_freq == pytest.approx(plain.inv_freq, rel=1e-6)
    assert set(tensors(kept)) == {ROPE_FACTORS_LONG}
    assert edits(kept) == {
        "context_length": 32768,
        "rope.scaling.type": "longrope",
        "rope.scaling.original_context_length": 4096,
    }
    assert kept.freq_base.after == MODEL.freq_base
    assert kept.gamma.effective == plain.gamma.effective
    assert kept.verdict is plain.verdict


def test_keep_short_drops_the_attention_factor_of_yarn_and_says_so() -> None:
    made = plan(MODEL, PlanRequest(target_length=32768, method=Method.YARN, keep_short=True))
    assert made.attention_factor == 1.0
    assert "attention_factor_dropped" in codes(made)
    assert "short_texts" not in codes(made)


def test_keep_short_says_where_rounded_contexts_are_long_already() -> None:
    odd = replace(MODEL, train_length=4000)
    made = plan(odd, PlanRequest(target_length=16000, keep_short=True))
    assert "context_rounded" in codes(made)
    assert "context_rounded" not in codes(
        plan(MODEL, PlanRequest(target_length=16384, keep_short=True))
    )


def test_keep_short_is_recommended_where_the_architecture_takes_it() -> None:
    assert "keep_short_possible" in codes(plan(MODEL, PlanRequest(target_length=8192)))
    assert "keep_short_possible" not in codes(plan(LLAMA_2, PlanRequest(target_length=8192)))
    assert "keep_short_possible" not in codes(
        plan(MODEL, PlanRequest(target_length=8192, keep_short=True))
    )


@pytest.mark.parametrize(
    ("factors", "possible"),
    [
        (Factors(LONG, None, 1.0), False),
        (Factors(LONG, None, 1.25), True),
        (Factors(LONG, (1.5,) * 64, 1.0), True),
    ],
)
def test_keep_short_is_not_recommended_where_factors_leave_short_contexts_alone(
    factors: Factors, possible: bool
) -> None:
    request = PlanRequest(target_length=32768, method=Method.LONGROPE, recipe=recipe(factors))
    assert ("keep_short_possible" in codes(plan(MODEL, request))) is possible


@pytest.mark.parametrize(
    ("support", "taken"),
    [
        (FactorSupport.NONE, set()),
        (FactorSupport.ROPE_FREQS, {"llama3"}),
        (FactorSupport.LONG_SHORT, {"longrope", "keep-short"}),
        (FactorSupport.BY_TYPE, {"llama3", "longrope", "keep-short"}),
    ],
)
def test_tensors_are_written_only_where_llama_cpp_takes_them(
    support: FactorSupport, taken: set[str]
) -> None:
    model = replace(MODEL, factor_support=support)
    requests: dict[str, dict[str, object]] = {
        "llama3": {"method": Method.LLAMA3},
        "longrope": {"method": Method.LONGROPE, "recipe": recipe(Factors(LONG))},
        "keep-short": {"keep_short": True},
    }
    for name, request in requests.items():
        if name in taken:
            assert plan(model, PlanRequest(target_length=8192, **request)).tensor_edits  # type: ignore[arg-type]
        else:
            code = refused_code(model, target_length=8192, **request)
            assert code == "tensors_not_supported"


def test_a_table_of_all_methods_leaves_out_what_cannot_be_planned() -> None:
    names = [made.method for made in plan_all_methods(MODEL, PlanRequest(target_length=8192))]
    assert names == [Method.GAMMA, Method.NTK, Method.YARN, Method.LINEAR, Method.LLAMA3]
    without = [made.method for made in plan_all_methods(LLAMA_2, PlanRequest(target_length=8192))]
    assert Method.LLAMA3 not in without


def test_factors_belong_to_longrope_and_longrope_needs_factors() -> None:
    assert refused_code(target_length=8192, method=Method.LONGROPE) == "factors_needed"
    code = refused_code(
        target_length=8192,
        method=Method.YARN,
        recipe=Recipe(Method.YARN, factors=Factors(LONG)),
    )
    assert code == "not_for_method"
    code = refused_code(
        target_length=8192, method=Method.LONGROPE, recipe=recipe(Factors(LONG[:3]))
    )
    assert code == "bad_recipe"


def test_a_wanted_base_is_written_and_gives_its_gamma() -> None:
    made = plan(
        MODEL, PlanRequest(target_length=32768, recipe=Recipe(Method.GAMMA, freq_base=60_000.0))
    )
    assert made.freq_base.after == as_float32(60_000.0)
    assert made.gamma.effective == pytest.approx(made.gamma.after)
    assert (
        refused_code(target_length=32768, recipe=Recipe(Method.GAMMA, freq_base=9_000.0))
        == "lowers_base"
    )
    assert (
        refused_code(target_length=32768, recipe=Recipe(Method.GAMMA, freq_base=math.nan))
        == "base_out_of_range"
    )
    code = refused_code(
        target_length=32768,
        method=Method.LINEAR,
        recipe=Recipe(Method.LINEAR, freq_base=6e4),
    )
    assert code == "not_for_method"
