"""The KV cache that llama.cpp allocates, as its log and its graph tell."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ggufext.llama.settings import ContextSettings
from observed import cache_lines
from random_architectures import ARCHITECTURES

if TYPE_CHECKING:
    from collections.abc import Callable

    from ggufext.llama.rope_nodes import Observation

    Run = Callable[..., Observation]

BLOCK = {"f32": (1, 4), "f16": (1, 2), "q8_0": (32, 34), "q4_0": (32, 18)}

WINDOW = 512


def padded(cells: int) -> int:
    return -(-cells // 256) * 256


def global_and_local_cells(run: Run, settings: ContextSettings) -> tuple[int, int]:
    keys = {"attention.sliding_window": WINDOW, "context_length": 8192}
    observed = run("gemma3", keys, settings=settings)
    all_global, local = cache_lines(observed)
    assert (all_global.layers, local.layers) == (1, 5)
    return all_global.cells * all_global.streams, local.cells * local.streams


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
@pytest.mark.parametrize("type_name", sorted(BLOCK))
def test_bytes_are_cells_times_width_times_bytes_of_the_type(
    run_model: Run, architecture: str, type_name: str
) -> None:
    settings = ContextSettings(n_ctx=1000, type_k=type_name, type_v=type_name)
    observed = run_model(architecture, settings=settings)
    elements, size = BLOCK[type_name]
    geometry = ARCHITECTURES[architecture].geometry
    expected = padded(1000) * geometry.kv_width // elements * size
    assert {tensor.size for tensor in observed.cache_tensors} == {expected}
    assert len(observed.cache_tensors) == 2 * geometry.layers


def test_log_agrees_with_the_tensors_to_its_two_decimals(run_model: Run) -> None:
    observed = run_model("llama", settings=ContextSettings(n_ctx=4096, type_k="q8_0"))
    (line,) = cache_lines(observed)
    keys = sum(tensor.size for tensor in observed.cache_tensors if tensor.tensor == "k")
    assert (line.cells, line.layers, line.type_k, line.type_v) == (4096, 2, "q8_0", "f16")
    assert line.mib_k == pytest.approx(keys / 2**20, abs=0.005)


@pytest.mark.parametrize("n_ctx", [300, 1000, 2048, 4096])
@pytest.mark.parametrize("n_ubatch", [64, 512, 2048])
def test_local_layers_hold_window_and_ubatch_padded(
    run_model: Run, n_ctx: int, n_ubatch: int
) -> None:
    settings = ContextSettings(n_ctx=n_ctx, n_ubatch=n_ubatch, swa_full=False)
    longest = padded(n_ctx)
    local = padded(min(longest, WINDOW + min(n_ubatch, n_ctx, 2048)))
    assert global_and_local_cells(run_model, settings) == (longest, local)


def test_local_layers_are_as_long_as_global_ones_by_the_library_default(run_model: Run) -> None:
    settings = ContextSettings(n_ctx=4096)
    assert global_and_local_cells(run_model, settings) == (4096, 4096)


@pytest.mark.parametrize(
    ("unified", "expected"),
    [
        pytest.param(True, (4096, padded(3 * WINDOW + 512)), id="one cache for all sequences"),
        pytest.param(False, (3 * padded(4096 // 3), 3 * padded(WINDOW + 512)), id="one cache each"),
    ],
)
def test_three_sequences(run_model: Run, unified: bool, expected: tuple[int, int]) -> None:
    settings = ContextSettings(n_ctx=4096, n_seq_max=3, kv_unified=unified, swa_full=False)
    assert global_and_local_cells(run_model, settings) == expected
