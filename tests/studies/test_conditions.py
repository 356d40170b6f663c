"""A condition of the study rotates with the base or the factors that its name says."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

import conditions
import ggufext
import passkey_task
from llama_here import needs_llama_cpp

MODEL = Path(passkey_task.__file__).with_name("passkey-Q8_0.gguf")
BASE, LENGTH, PAIRS = 500.0, 256, 16
TARGET = 1024


def rotation(condition: str) -> tuple[tuple[float, ...], float]:
    """Inverse frequencies and attention factor of a condition on the shipped model."""
    facts = ggufext.facts_of(MODEL)
    recipe = conditions.recipe(condition, facts, TARGET)
    assert recipe is not None
    made = ggufext.plan(
        facts, ggufext.PlanRequest(target_length=TARGET, method=recipe.method, recipe=recipe)
    )
    return made.inv_freq, made.attention_factor


def of_base(freq_base: float) -> list[float]:
    return [freq_base ** (-i / PAIRS) for i in range(PAIRS)]


@pytest.mark.parametrize("multiple", conditions.BASE_MULTIPLES)
def test_a_multiple_is_one_of_the_base_that_the_rule_writes(multiple: float) -> None:
    inv_freq, attention_factor = rotation(conditions.base_multiple(multiple))
    assert inv_freq == pytest.approx(of_base(BASE * TARGET / LENGTH * multiple), rel=1e-6)
    assert attention_factor == 1


@pytest.mark.parametrize("gamma", conditions.GAMMA_TARGETS)
def test_a_gamma_target_is_the_base_of_the_rule_for_it(gamma: float) -> None:
    base = TARGET * math.sqrt(2) * (1 + gamma) / (2 * (1 - gamma))
    inv_freq, attention_factor = rotation(conditions.gamma_target(gamma))
    assert inv_freq == pytest.approx(of_base(base), rel=1e-6)
    assert attention_factor == 1


def test_a_base_below_the_trained_one_is_written_as_factors() -> None:
    facts = ggufext.facts_of(MODEL)
    lower = conditions.recipe(conditions.base_multiple(0.25), facts, 512)
    higher = conditions.recipe(conditions.base_multiple(0.5), facts, 2048)
    assert lower is not None
    assert higher is not None
    assert lower.method is ggufext.Method.LONGROPE
    assert higher.method is ggufext.Method.GAMMA


def test_plain_yarn_rotates_as_yarn_does_without_its_attention_factor() -> None:
    facts = ggufext.facts_of(MODEL)
    yarn = ggufext.plan(
        facts, ggufext.PlanRequest(target_length=TARGET, method=ggufext.Method.YARN)
    )
    inv_freq, attention_factor = rotation(conditions.YARN_PLAIN)
    assert inv_freq == pytest.approx(yarn.inv_freq, rel=1e-6)
    assert attention_factor == 1
    assert yarn.attention_factor > 1


def test_a_condition_that_the_program_names_needs_no_recipe(tmp_path: Path) -> None:
    facts = ggufext.facts_of(MODEL)
    assert conditions.write("native", facts, TARGET, tmp_path) == "native"
    assert conditions.write("yarn", facts, TARGET, tmp_path) == "planned:yarn"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["magic", "gamma=", "base*", "delta=1"])
def test_another_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="no condition"):
        conditions.recipe(name, ggufext.facts_of(MODEL), TARGET)


@pytest.mark.parametrize("condition", ["gamma=0.3", "base*2", conditions.YARN_PLAIN])
def test_llama_cpp_rotates_as_the_recipe_says(condition: str, tmp_path: Path) -> None:
    needs_llama_cpp()
    name = conditions.write(condition, ggufext.facts_of(MODEL), TARGET, tmp_path)
    request = ggufext.CheckRequest(
        lengths=(128,),
        depths=1,
        trials=1,
        conditions=(name,),
        target_length=TARGET,
        engine=ggufext.LocalSettings(audit=True, threads=1),
    )
    # The audit of the ROPE nodes raises where the rotation is another.
    assert ggufext.check(MODEL, request, allow_copy=True).run.complete
