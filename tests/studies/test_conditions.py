"""A condition of the study rotates with the base or the factors that its name says."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

import conditions
import ggufext
import passkey_task
from ggufext.audit.conditions import planned_request
from llama_here import needs_llama_cpp

MODEL = Path(passkey_task.__file__).with_name("passkey-Q8_0.gguf")
BASE, LENGTH, PAIRS = 500.0, 256, 16
TARGET = 1024


def rotation(condition: str, folder: Path) -> tuple[tuple[float, ...], float]:
    """Inverse frequencies and attention factor of a condition on the shipped model."""
    facts = ggufext.facts_of(MODEL)
    name = conditions.program_name(condition, facts, TARGET, folder)
    made = ggufext.plan(facts, planned_request(name, ggufext.PlanRequest(target_length=TARGET)))
    return made.inv_freq, made.attention_factor


def of_base(freq_base: float) -> list[float]:
    return [freq_base ** (-i / PAIRS) for i in range(PAIRS)]


@pytest.mark.parametrize("multiple", conditions.BASE_MULTIPLES)
def test_a_multiple_is_one_of_the_base_that_the_rule_writes(
    multiple: float, tmp_path: Path
) -> None:
    inv_freq, attention_factor = rotation(conditions.base_multiple(multiple), tmp_path)
    assert inv_freq == pytest.approx(of_base(BASE * TARGET / LENGTH * multiple), rel=1e-6)
    assert attention_factor == 1


def test_a_multiple_is_exact_where_gamma_is_close_to_1(tmp_path: Path) -> None:
    large = ggufext.facts_of(MODEL, ggufext.PlanRequest(target_length=1, train_freq_base=1e7))
    name = conditions.program_name(conditions.base_multiple(4), large, TARGET, tmp_path)
    request = ggufext.PlanRequest(target_length=TARGET, train_freq_base=1e7)
    made = ggufext.plan(large, planned_request(name, request))
    assert made.freq_base.after == pytest.approx(1.6e8, rel=1e-6)


@pytest.mark.parametrize("gamma", conditions.GAMMA_TARGETS)
def test_a_gamma_target_is_the_base_of_the_rule_for_it(gamma: float, tmp_path: Path) -> None:
    base = TARGET * math.sqrt(2) * (1 + gamma) / (2 * (1 - gamma))
    inv_freq, attention_factor = rotation(conditions.gamma_target(gamma), tmp_path)
    assert inv_freq == pytest.approx(of_base(base), rel=1e-6)
    assert attention_factor == 1


def test_plain_yarn_rotates_as_yarn_does_without_its_attention_factor(tmp_path: Path) -> None:
    expected, with_factor = rotation("yarn", tmp_path)
    inv_freq, attention_factor = rotation(conditions.YARN_PLAIN, tmp_path)
    assert inv_freq == pytest.approx(expected, rel=1e-6)
    assert attention_factor == 1
    assert with_factor > 1


def test_only_plain_yarn_needs_a_recipe(tmp_path: Path) -> None:
    facts = ggufext.facts_of(MODEL)
    names = ["native", "yarn", "gamma=0.3", "base*0.25"]
    made = [conditions.program_name(name, facts, TARGET, tmp_path) for name in names]
    assert made[:3] == ["native", "planned:yarn", "planned:gamma=0.3"]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["magic", "gamma=", "base*", "tuned", "delta=1"])
def test_another_name_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no condition"):
        conditions.program_name(name, ggufext.facts_of(MODEL), TARGET, tmp_path)


@pytest.mark.parametrize("condition", ["gamma=0.3", "base*0.25", conditions.YARN_PLAIN])
def test_llama_cpp_rotates_as_the_condition_says(condition: str, tmp_path: Path) -> None:
    needs_llama_cpp()
    name = conditions.program_name(condition, ggufext.facts_of(MODEL), TARGET, tmp_path)
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
