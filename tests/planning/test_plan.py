"""What a plan writes, refuses and warns of."""

from __future__ import annotations

import math
import struct
from dataclasses import replace

import pytest

from ggufext.errors import PlanError
from ggufext.header.architectures import Support
from ggufext.header.facts import ModelFacts, Scaling
from ggufext.planning.gamma import Verdict, gamma_pade
from ggufext.planning.methods import Method
from ggufext.planning.plan import plan, plan_all_methods
from ggufext.planning.request import PlanRequest
from planning.facts import LLAMA_2, LLAMA_3, codes, edits, facts


def refusal(facts: ModelFacts, **request: object) -> PlanError:
    with pytest.raises(PlanError) as caught:
        plan(facts, PlanRequest(**request))  # type: ignore[arg-type]
    return caught.value


def test_gamma_keeps_the_native_gamma_with_base_times_factor() -> None:
    made = plan(LLAMA_3, PlanRequest(target_length=32768))
    assert made.freq_base.after == 2_000_000.0
    assert made.gamma.after == pytest.approx(made.gamma.native, rel=1e-12)
    assert edits(made) == {
        "context_length": 32768,
        "rope.freq_base": 2_000_000.0,
        "rope.scaling.type": "none",
        "rope.scaling.original_context_length": 8192,
    }


def test_ntk_writes_a_base_and_switches_scaling_off() -> None:
    made = plan(LLAMA_3, PlanRequest(target_length=32768, method=Method.NTK))
    assert edits(made)["rope.freq_base"] == pytest.approx(2044497.12, rel=1e-6)
    assert edits(made)["rope.scaling.type"] == "none"


@pytest.mark.parametrize("method", [Method.YARN, Method.LINEAR])
def test_scaling_methods_write_type_factor_and_the_original_length(method: Method) -> None:
    made = plan(LLAMA_2, PlanRequest(target_length=32768, method=method))
    assert edits(made) == {
        "context_length": 32768,
        "rope.scaling.type": method.value,
        "rope.scaling.factor": 8.0,
        "rope.scaling.original_context_length": 4096,
    }


@pytest.mark.parametrize("before", ["none", "yarn"])
def test_base_methods_leave_a_factor_key_without_effect(before: str) -> None:
    with_factor = facts(train_length=4096, freq_base=1e4, has_scaling_factor=True)
    stale = replace(
        with_factor,
        metadata=tuple(
            (key, 2.0 if key.endswith("scaling.factor") else value)
            for key, value in with_factor.metadata
        ),
        scaling=Scaling(before, 2.0, 4096, 1.0, ()),
        train_length_source="--train-length",
    )
    made = plan(stale, PlanRequest(target_length=8192))
    # Local layers of some architectures know the factor under type none.
    assert edits(made).get("rope.scaling.factor") == (None if before == "none" else 1.0)
    assert edits(made)["rope.scaling.type"] == "none"
    assert made.factor_key == (2.0 if before == "none" else 1.0)


def test_values_are_those_that_a_32_bit_key_holds() -> None:
    made = plan(LLAMA_2, PlanRequest(target_length=5000))
    after = made.freq_base.after
    assert struct.unpack("<f", struct.pack("<f", after))[0] == after
    assert made.inv_freq[1] == after ** (-2 / 128)


def test_a_wanted_gamma_that_lowers_the_base_is_refused_with_the_smallest_that_does_not() -> None:
    error = refusal(LLAMA_3, target_length=32768, gamma=0.85)
    assert error.code == "lowers_base"
    native, smallest = gamma_pade(5e5, 8192), gamma_pade(5e5, 32768)
    assert f"{native:.4f}" in error.message
    assert f"{smallest:.4f}" in error.message
    made = plan(LLAMA_3, PlanRequest(target_length=32768, gamma=0.85, allow_lower_base=True))
    assert made.freq_base.after == pytest.approx(285769.19, rel=1e-7)
    assert (
        plan(LLAMA_3, PlanRequest(target_length=32768, gamma=smallest + 1e-6)).freq_base.after
        >= 5e5
    )


def test_a_wanted_gamma_reaches_it() -> None:
    made = plan(LLAMA_3, PlanRequest(target_length=32768, gamma=0.99))
    assert made.gamma.after == pytest.approx(0.99, rel=1e-7)
    assert made.d_horizon == pytest.approx(5e5 * 0.01 * math.sqrt(2) / 1.99)


def test_a_wanted_gamma_belongs_to_the_gamma_method() -> None:
    error = refusal(LLAMA_3, target_length=32768, gamma=0.99, method=Method.YARN)
    assert error.code == "not_for_method"


@pytest.mark.parametrize("target", [1, 4096, 8192])
def test_a_target_within_the_training_length_needs_nothing(target: int) -> None:
    made = plan(LLAMA_3, PlanRequest(target_length=target))
    assert made.verdict is Verdict.NO_EXTENSION_NEEDED
    assert made.edits == ()
    assert made.inv_freq == LLAMA_3.inv_freq


@pytest.mark.parametrize("target", [0, -5, 2**31])
def test_a_target_that_no_position_can_have_is_refused(target: int) -> None:
    assert refusal(LLAMA_3, target_length=target, force=True).code == "target_absurd"


def test_an_absurd_factor_needs_force() -> None:
    assert refusal(LLAMA_2, target_length=4096 * 1025).code == "target_absurd"
    assert plan(LLAMA_2, PlanRequest(target_length=4096 * 1025, force=True)).factor == 1025


@pytest.mark.parametrize(
    "scaling",
    [
        Scaling("none", 8.0, None, 1.0, ()),
        Scaling("yarn", 1.0, 4096, 1.0, ()),
        Scaling("linear", 1.0, None, 1.0, ()),
    ],
)
def test_scaling_keys_without_effect_are_no_obstacle(scaling: Scaling) -> None:
    unscaled = facts(train_length=4096, freq_base=1e4, scaling=scaling)
    assert plan(unscaled, PlanRequest(target_length=8192)).edits


@pytest.mark.parametrize(
    ("method", "pairs", "excess"),
    [
        (Method.GAMMA, 18, 8 ** (1 - 2 * 46 / 128)),
        (Method.NTK, 17, None),
        (Method.YARN, 0, 1.0),
        (Method.LINEAR, 0, 1.0),
    ],
)
def test_angles_beyond_training_of_llama_2_at_32k(
    method: Method, pairs: int, excess: float | None
) -> None:
    angles = plan(LLAMA_2, PlanRequest(target_length=32768, method=method)).out_of_distribution
    assert angles.pairs == pairs
    if excess is not None:
        assert angles.max_excess == pytest.approx(excess, rel=1e-6)


def test_every_plan_says_that_the_rule_is_not_validated() -> None:
    for made in plan_all_methods(LLAMA_2, PlanRequest(target_length=8192)):
        assert "gamma_rule_not_validated" in codes(made)


def test_static_scaling_warns_of_short_texts_and_base_methods_do_not() -> None:
    assert "short_texts" in codes(
        plan(LLAMA_2, PlanRequest(target_length=8192, method=Method.YARN))
    )
    assert "short_texts" in codes(
        plan(LLAMA_2, PlanRequest(target_length=8192, method=Method.LINEAR))
    )
    assert "short_texts" not in codes(plan(LLAMA_2, PlanRequest(target_length=8192)))


def test_factors_above_four_are_warned_of() -> None:
    assert "factor_above_4" not in codes(plan(LLAMA_2, PlanRequest(target_length=16384)))
    assert "factor_above_4" in codes(plan(LLAMA_2, PlanRequest(target_length=16385)))


def test_a_plan_that_changes_nothing_says_so() -> None:
    made = plan(LLAMA_2, PlanRequest(target_length=8192))
    after = dict(LLAMA_2.metadata) | {edit.key: edit.after for edit in made.edits}
    # A file that already holds the plan's values without a record of where they came from.
    held = replace(LLAMA_2, metadata=tuple(after.items()))
    assert "changes_nothing" in codes(plan(held, PlanRequest(target_length=8192)))


def test_unverified_architectures_are_planned_with_a_warning() -> None:
    made = plan(
        facts(train_length=4096, freq_base=1e4, support=Support.READ),
        PlanRequest(target_length=8192),
    )
    assert made.edits
    assert "unverified_architecture" in codes(made)
