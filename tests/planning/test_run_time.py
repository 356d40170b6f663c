"""Methods that llama.cpp runs and no file holds: their tables and options."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ggufext.errors import PlanError
from ggufext.header.facts import Scaling
from ggufext.planning.run_time import dynamic, self_extend
from planning.facts import LLAMA_2, LLAMA_3


def dynamic_reference(base: float, dim: int, factor: float, length: int, trained: int) -> float:
    """_compute_dynamic_ntk_parameters of transformers' modeling_rope_utils.py."""
    return base * math.pow((factor * length / trained) - (factor - 1), dim / (dim - 2))


def test_dynamic_gives_a_base_for_each_doubling_and_the_target() -> None:
    made = dynamic(LLAMA_2, target_length=20_000)
    assert [row.length for row in made.rows] == [4096, 8192, 16384, 20_000]
    factor = 20_000 / 4096
    for row in made.rows:
        expected = dynamic_reference(1e4, 128, factor, row.length, 4096)
        assert row.freq_base == pytest.approx(expected, rel=1e-7)
        assert row.options == f"--ctx-size {row.length} --rope-freq-base {row.freq_base:.9g}"


def test_dynamic_changes_nothing_at_the_training_length() -> None:
    assert dynamic(LLAMA_3, target_length=32768).rows[0].freq_base == 500_000.0


def test_dynamic_is_refused_for_models_scaled_otherwise() -> None:
    yarn = replace(LLAMA_2, scaling=Scaling("yarn", 4.0, 1024, 1.0, ()))
    with pytest.raises(PlanError) as caught:
        dynamic(yarn, target_length=8192)
    assert caught.value.code == "cannot_combine"


@given(train=st.integers(512, 2**20), factor=st.floats(1.01, 64))
def test_self_extend_brings_the_target_into_the_trained_positions(
    train: int, factor: float
) -> None:
    target = int(train * factor) + 1
    made = self_extend(replace(LLAMA_2, train_length=train), target_length=target)
    assert made.window % made.group == 0
    assert made.window < train
    largest = made.window + (target - made.window) / made.group
    assert largest <= made.largest_position <= train


def test_self_extend_gives_the_options_of_llama_cpp() -> None:
    made = self_extend(LLAMA_2, target_length=16384)
    assert (made.group, made.window) == (5, 510)
    assert made.options == "--ctx-size 16384 --grp-attn-n 5 --grp-attn-w 510"


@pytest.mark.parametrize("make", [dynamic, self_extend])
def test_a_target_within_the_training_length_is_refused(make: object) -> None:
    with pytest.raises(PlanError) as caught:
        make(LLAMA_2, target_length=4096)  # type: ignore[operator]
    assert caught.value.code == "target_not_longer"


@pytest.mark.parametrize("make", [dynamic, self_extend])
@pytest.mark.parametrize(("target", "force"), [(2**31, True), (4096 * 1024 + 1, False)])
def test_a_target_beyond_any_reason_is_refused(make: object, target: int, force: bool) -> None:
    with pytest.raises(PlanError) as caught:
        make(LLAMA_2, target_length=target, force=force)  # type: ignore[operator]
    assert caught.value.code == "target_absurd"


def test_dynamic_refuses_a_base_that_32_bits_do_not_hold() -> None:
    narrow = replace(LLAMA_2, rotary_dim=4, train_length=1, freq_base=1e12)
    with pytest.raises(PlanError) as caught:
        dynamic(narrow, target_length=2**31 - 1, force=True)
    assert caught.value.code == "base_out_of_range"
