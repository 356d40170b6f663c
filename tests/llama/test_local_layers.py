"""gemma3: which layers are local, and what reaches them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from gguf import GGUFValueType

from ggufext.errors import EngineError
from random_model import Typed

if TYPE_CHECKING:
    from collections.abc import Callable

    from ggufext.llama.rope_nodes import Observation, RopeNode

    Run = Callable[..., Observation]

PATTERN = "attention.sliding_window_pattern"
LOCAL_BASE, GLOBAL_BASE = 10_000.0, 1_000_000.0

YARN = {
    "rope.scaling.type": "yarn",
    "rope.scaling.factor": 4.0,
    "rope.scaling.original_context_length": 64,
}


def queries(observation: Observation) -> list[RopeNode]:
    return [node for node in observation.rope_nodes if node.tensor == "q"]


def local_layers(observation: Observation) -> list[int]:
    return [node.layer for node in queries(observation) if node.freq_base == LOCAL_BASE]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        pytest.param(None, [0, 1, 2, 3, 4], id="absent: every sixth is global"),
        pytest.param(3, [0, 1, 3, 4], id="number: every third is global"),
        pytest.param(0, [0, 1, 2, 3, 4, 5], id="zero: none is global"),
        pytest.param([False, True, True, False, True, True], [1, 2, 4, 5], id="array of bools"),
        pytest.param(
            Typed((0, 1, 1, 0, 1, 1), GGUFValueType.ARRAY, GGUFValueType.UINT32),
            [1, 2, 4, 5],
            id="array of numbers",
        ),
        pytest.param([True, True], [0, 1], id="short array: the rest is global"),
    ],
)
def test_pattern_chooses_the_local_layers(
    run_model: Run, pattern: object, expected: list[int]
) -> None:
    assert local_layers(run_model("gemma3", {PATTERN: pattern})) == expected


@pytest.mark.parametrize(
    ("pattern", "code"),
    [
        pytest.param(1, "engine_died", id="no local layer at all"),
        pytest.param(Typed(3, GGUFValueType.INT32), "model_not_loaded", id="i32"),
        pytest.param(True, "model_not_loaded", id="bool"),
    ],
)
def test_pattern_that_llama_cpp_does_not_accept(run_model: Run, pattern: object, code: str) -> None:
    with pytest.raises(EngineError) as error:
        run_model("gemma3", {PATTERN: pattern})
    assert error.value.code == code


@pytest.mark.parametrize("window", [None, 0])
def test_without_a_window_every_layer_is_global(run_model: Run, window: int | None) -> None:
    keys = {"attention.sliding_window": window, "rope.scaling.factor": 4.0}
    nodes = queries(run_model("gemma3", keys))
    assert {(node.freq_base, node.freq_scale) for node in nodes} == {(GLOBAL_BASE, 0.25)}


def test_local_layers_keep_their_base_whatever_freq_base_says(run_model: Run) -> None:
    nodes = queries(run_model("gemma3", {"rope.freq_base": 5e6}))
    assert [node.freq_base for node in nodes] == [LOCAL_BASE] * 5 + [5e6]


def test_freq_base_swa_moves_the_local_layers_only(run_model: Run) -> None:
    nodes = queries(run_model("gemma3", {"rope.freq_base_swa": 5e5}))
    assert [node.freq_base for node in nodes] == [5e5] * 5 + [GLOBAL_BASE]


@pytest.mark.parametrize(
    "keys",
    [
        pytest.param({"rope.freq_base": 5e6}, id="freq_base"),
        pytest.param({"rope.scaling.type": "linear", "rope.scaling.factor": 4.0}, id="linear"),
        pytest.param(YARN, id="yarn"),
    ],
)
def test_extension_changes_no_logit_of_a_model_whose_layers_are_all_local(
    run_model: Run, keys: dict[str, object]
) -> None:
    changed = run_model("gemma3", {PATTERN: 0, **keys})
    assert {node.freq_scale for node in changed.rope_nodes} == {1.0}
    assert changed.logits == run_model("gemma3", {PATTERN: 0}).logits


def test_attn_factor_does_change_local_layers(run_model: Run) -> None:
    changed = run_model("gemma3", {PATTERN: 0, "rope.scaling.attn_factor": 1.2})
    assert changed.logits != run_model("gemma3", {PATTERN: 0}).logits


@pytest.mark.parametrize(
    ("first_layer_is_local", "n_dims"),
    [pytest.param(True, 16, id="local"), pytest.param(False, 64, id="global")],
)
def test_first_layer_decides_the_rotated_dimensions_of_all(
    run_model: Run, first_layer_is_local: bool, n_dims: int
) -> None:
    pattern = [first_layer_is_local, True, True, True, True, False]
    keys = {PATTERN: pattern, "rope.dimension_count": 64, "rope.dimension_count_swa": 16}
    assert {node.n_dims for node in run_model("gemma3", keys).rope_nodes} == {n_dims}
