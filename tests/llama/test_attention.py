"""Attention by distance as the child reads it, against whole softmaxes and a recomputed one."""

from __future__ import annotations

from array import array
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from captured_attention import SETTINGS, captured
from ggufext.llama.settings import LoadRequest
from random_model import write_random_model

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from ggufext.llama.process import LlamaProcess

    Array = npt.NDArray[np.float64]

TOKENS = tuple((7 * i * i + 3 * i) % 250 for i in range(300))
SINK = 4
EDGES = [1, 2, 3, 5, 9, 20, 70, 151]
#: The first one is the first with more positions between sink and itself than the ranges reach.
ROWS = [155, 156, 200, 201, 202, 299]


def read(
    probe: LlamaProcess,
    path: Path,
    *,
    layers: int = 2,
    pieces: Sequence[int] = (300,),
    edges: Sequence[Sequence[int]] | None = None,
    n_ubatch: int = 512,
) -> dict[int, Array]:
    """Sums of every layer, rows × heads × columns, of a text that is read in pieces."""
    load = LoadRequest(path=path, context=replace(SETTINGS, n_ubatch=n_ubatch))
    probe.request(path, "open_attention", load=load, sink=SINK, edges=edges or [EDGES] * layers)
    found: dict[int, list[Array]] = {}
    position = 0
    for size in pieces:
        tokens = TOKENS[position : position + size]
        rows = [row for row in ROWS if position <= row < position + size]
        reply, sums = probe.request(
            path, "attention", array("i", tokens).tobytes(), position=position, rows=rows
        )
        position += size
        values = np.frombuffer(sums, np.float32).astype(float)
        for each in reply["layers"]:
            shape = (len(rows), each["heads"], each["columns"])
            count = int(np.prod(shape))
            found.setdefault(each["layer"], []).append(values[:count].reshape(shape))
            values = values[count:]
        assert not values.size
    return {layer: np.concatenate(parts) for layer, parts in found.items()}


def plain_sums(attention: Array, row: int, edges: Sequence[int]) -> list[float]:
    """The columns of a row of one head, one token after another."""
    columns = [0.0] * (len(edges) + 2)
    for position in range(row + 1):
        distance = row - position
        if position < SINK:
            column = len(edges) + 1
        elif distance >= edges[-1]:
            column = len(edges)
        else:
            column = sum(edge <= distance for edge in edges)
        columns[column] += attention[position]
    return columns


@pytest.fixture(scope="module")
def whole(
    random_models: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, npt.NDArray[np.float32]]:
    return captured(random_models("llama"), TOKENS, tmp_path_factory.mktemp("captured"))


def recomputed(whole: dict[str, npt.NDArray[np.float32]], layer: int) -> Array:
    """Attention probabilities in float64 from rotated queries and keys, heads × tokens × tokens."""
    q = whole[f"q-{layer}"].astype(float).transpose(1, 0, 2)
    k = whole[f"k-{layer}"].astype(float).transpose(1, 0, 2)
    group = len(q) // len(k)
    assert group > 1
    k = np.stack([k[head // group] for head in range(len(q))])
    scores = float(whole[f"scale-{layer}"]) * q @ k.transpose(0, 2, 1)
    scores[:, np.triu(np.ones(scores.shape[1:], bool), 1)] = -np.inf
    weights = np.exp(scores - scores.max(axis=2, keepdims=True))
    return np.asarray(weights / weights.sum(axis=2, keepdims=True))


def test_sums_are_those_of_attention_recomputed_from_queries_and_keys(
    probe: LlamaProcess,
    random_models: Callable[[str], Path],
    whole: dict[str, npt.NDArray[np.float32]],
) -> None:
    found = read(probe, random_models("llama"))
    assert sorted(found) == [0, 1]
    for layer, sums in found.items():
        attention = recomputed(whole, layer)
        wanted = [[plain_sums(head[row], row, EDGES) for head in attention] for row in ROWS]
        assert sums == pytest.approx(np.array(wanted), abs=3e-5)
        # Heads differ by more than that, so that one mistaken for another would be seen.
        assert np.abs(sums - sums[:, ::-1]).max() > 1e-2


def test_sums_are_those_of_whole_rows_of_the_softmax(
    probe: LlamaProcess,
    random_models: Callable[[str], Path],
    whole: dict[str, npt.NDArray[np.float32]],
) -> None:
    for layer, sums in read(probe, random_models("llama")).items():
        attention = whole[f"softmax-{layer}"].astype(float)
        wanted = [[plain_sums(head[row], row, EDGES) for head in attention] for row in ROWS]
        assert sums == pytest.approx(np.array(wanted), rel=1e-6)


def test_rows_sum_to_one(probe: LlamaProcess, random_models: Callable[[str], Path]) -> None:
    for sums in read(probe, random_models("llama")).values():
        assert sums.shape == (len(ROWS), 4, len(EDGES) + 2)
        assert sums.sum(axis=2) == pytest.approx(1, abs=1e-5)
        assert (sums[:, :, -1] > 0).all()


def test_pieces_and_micro_batches_change_nothing_but_rounding(
    probe: LlamaProcess, random_models: Callable[[str], Path]
) -> None:
    at_once = read(probe, random_models("llama"))
    pieces = read(probe, random_models("llama"), pieces=(128, 100, 72), n_ubatch=64)
    for layer, sums in at_once.items():
        assert pieces[layer] == pytest.approx(sums, rel=1e-4)


def test_local_layers_have_ranges_of_their_own(probe: LlamaProcess, tmp_path: Path) -> None:
    window = 32
    path = write_random_model(
        tmp_path / "gemma3.gguf", "gemma3", metadata={"gemma3.attention.sliding_window": window}
    )
    local = [1, 2, 9, window]
    found = read(probe, path, edges=[local] * 5 + [EDGES])
    assert sorted(found) == list(range(6))
    for layer in range(5):
        assert found[layer].shape[2] == len(local) + 2
        beyond, sink = found[layer][:, :, -2], found[layer][:, :, -1]
        assert (beyond == 0).all()
        assert (sink == 0).all()
    assert (found[5][:, :, 1:] > 0).all()


def test_recurrent_layers_show_no_attention(probe: LlamaProcess, tmp_path: Path) -> None:
    path = write_random_model(tmp_path / "mixed.gguf", "qwen35")
    assert sorted(read(probe, path)) == [1]


def test_rows_of_a_layer_with_attention_sinks_sum_to_less_than_one(
    probe: LlamaProcess, random_models: Callable[[str], Path]
) -> None:
    found = read(probe, random_models("gpt-oss"), edges=[[1, 2, 9, 32], EDGES])
    totals = found[1].sum(axis=2)
    assert (totals < 1).all()
    assert (totals > 0.9).all()
