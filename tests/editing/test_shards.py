"""Rewriting a split model: its first part changes, and undo gives it back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ggufext.editing.inspection import inspect
from ggufext.editing.rewrite import recover, rewrite, undo
from ggufext.editing.shards import raised_tensor_count
from ggufext.errors import HeaderError, PlanError
from ggufext.header.reading import read_header
from random_model import write_random_model
from split_model import split_model

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(params=[False, True], ids=["tensors in every part", "metadata first"])
def parts(request: pytest.FixtureRequest, llama: Path) -> tuple[Path, ...]:
    return split_model(llama, llama.with_name("split"), parts=3, metadata_first=request.param)


def test_a_rewrite_changes_the_first_part_and_undo_gives_it_back(parts: tuple[Path, ...]) -> None:
    original = [part.read_bytes() for part in parts]
    rewrite(parts[0], target_length=8192)
    assert read_header(parts[0]).value("llama.context_length") == 8192
    assert [part.read_bytes() for part in parts[1:]] == original[1:]
    undo(parts[0])
    assert [part.read_bytes() for part in parts] == original


def test_a_later_part_stands_for_the_first(parts: tuple[Path, ...]) -> None:
    original = parts[0].read_bytes()
    assert rewrite(parts[2], target_length=8192).receipt.output == parts[0]
    assert inspect(parts[1]).path == parts[0]
    assert recover(parts[1]).path == parts[0]
    assert undo(parts[2]).path == parts[0]
    assert parts[0].read_bytes() == original


def test_inspect_shows_the_whole_set(llama: Path, parts: tuple[Path, ...]) -> None:
    whole, found = inspect(llama), inspect(parts[0])
    assert found.tensor_count == whole.tensor_count
    assert found.quantization == whole.quantization
    assert found.kv_cache_bytes_per_token == whole.kv_cache_bytes_per_token
    assert found.size == sum(part.stat().st_size for part in parts)
    assert [shard.path for shard in found.shards] == list(parts)
    assert sum(shard.tensor_count for shard in found.shards) == whole.tensor_count
    assert found.warnings == whole.warnings == ()
    assert whole.shards == ()


def test_an_incomplete_set_is_not_rewritten_but_undone(parts: tuple[Path, ...]) -> None:
    original = parts[0].read_bytes()
    rewrite(parts[0], target_length=8192)
    edited = parts[0].read_bytes()
    parts[2].unlink()
    with pytest.raises(HeaderError) as caught:
        rewrite(parts[0], target_length=16384)
    assert caught.value.code == "shard_missing"
    assert parts[0].read_bytes() == edited
    undo(parts[0])
    assert parts[0].read_bytes() == original


def test_factor_tensors_in_a_later_part_count(tmp_path: Path) -> None:
    import numpy as np

    factors = {"rope_freqs.weight": np.full(16, 8.0, np.float32)}
    model = write_random_model(tmp_path / "model.gguf", "llama", tensors=factors)
    first, second = split_model(model, tmp_path / "split", parts=2)
    assert "rope_freqs.weight" in {tensor.name for tensor in read_header(second).tensors}
    with pytest.raises(PlanError, match=r"rope_freqs\.weight") as caught:
        rewrite(first, target_length=8192)
    assert caught.value.code == "cannot_combine"


def test_the_tensor_count_of_a_set_is_raised_in_its_own_type(
    llama: Path, parts: tuple[Path, ...]
) -> None:
    header = read_header(parts[0])
    entry = header.keys["split.tensors.count"]
    stored = parts[0].read_bytes()[entry.start : entry.end]
    raised = raised_tensor_count(header, added=1)["split.tensors.count"]
    assert raised[:-4] == stored[:-4]
    assert int.from_bytes(raised[-4:], "little") == int.from_bytes(stored[-4:], "little") + 1
    assert raised_tensor_count(read_header(llama), added=1) == {}
