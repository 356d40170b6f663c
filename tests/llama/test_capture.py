"""What the child captures of attention, against whole nodes read by another way."""

from __future__ import annotations

from array import array
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from captured_attention import SETTINGS, captured
from ggufext.errors import EngineError
from ggufext.llama.settings import LoadRequest
from ggufext.tuning.screen import attend
from ggufext.tuning.screening import captured_layers
from random_model import write_random_model

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from ggufext.llama.process import LlamaProcess
    from ggufext.tuning.screen import CapturedLayer

TOKENS = tuple((7 * i * i + 3 * i) % 250 for i in range(300))
ROWS = [3, 63, 64, 200, 299]


def read(
    probe: LlamaProcess, path: Path, *, layers: Sequence[int] = (0, 1), n_ubatch: int = 512
) -> list[CapturedLayer]:
    settings = replace(SETTINGS, n_ubatch=n_ubatch, flash_attn_type=1)
    reply, values = probe.request(
        path,
        "capture",
        array("i", TOKENS).tobytes(),
        load=LoadRequest(path=path, context=settings),
        rows=ROWS,
        layers=list(layers),
    )
    assert [each["layer"] for each in reply["layers"]] == list(layers)
    return list(captured_layers(reply["layers"], values))


@pytest.mark.parametrize("n_ubatch", [512, 64])
def test_queries_and_keys_are_those_that_were_rotated(
    n_ubatch: int,
    probe: LlamaProcess,
    random_models: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    path = random_models("llama")
    whole = captured(path, TOKENS, tmp_path)
    for index, layer in enumerate(read(probe, path, n_ubatch=n_ubatch)):
        keys = whole[f"k-{index}"]
        assert layer.scale == pytest.approx(float(whole[f"scale-{index}"]))
        assert layer.values.shape == layer.keys.shape == keys.shape
        # Flash attention in F16 changes what later layers get.
        near = (1e-6 if index == 0 else 2e-2) * float(np.abs(keys).max())
        assert layer.keys == pytest.approx(keys, abs=near)
        assert layer.queries == pytest.approx(whole[f"q-{index}"][ROWS], abs=near)


def test_values_come_out_where_attention_is_on_one_token_alone(
    probe: LlamaProcess, random_models: Callable[[str], Path]
) -> None:
    for layer in read(probe, random_models("llama")):
        shared = layer.queries.shape[1] // layer.values.shape[1]
        first = replace(layer, queries=layer.queries[:1])
        seen = attend(first, [0], window=None)[0]
        assert seen == pytest.approx(np.repeat(layer.values[0], shared, axis=0))


def test_layers_of_a_sliding_window_are_whole_too(probe: LlamaProcess, tmp_path: Path) -> None:
    path = write_random_model(
        tmp_path / "gemma3.gguf", "gemma3", metadata={"gemma3.attention.sliding_window": 32}
    )
    local, whole = read(probe, path, layers=(0, 5))
    assert len(local.keys) == len(whole.keys) == len(TOKENS)


def test_a_layer_without_attention_is_named(probe: LlamaProcess, tmp_path: Path) -> None:
    path = write_random_model(tmp_path / "mixed.gguf", "qwen35")
    with pytest.raises(EngineError, match="layer 0") as refused:
        read(probe, path, layers=(0, 1))
    assert refused.value.code == "engine_unknown"
