"""Rewriting a split model: its first part changes, and undo gives it back."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np
import pytest

from editing.disk import FailingDisk, RecordingDisk
from ggufext.editing.rewrite import recover, rewrite, undo
from ggufext.errors import EditError, HeaderError
from ggufext.header.header import read_header
from ggufext.opened.inspection import inspect
from ggufext.opened.model import facts_of
from ggufext.planning.methods import Method
from ggufext.planning.request import PlanRequest
from random_model import write_random_model
from split_model import split_model

if TYPE_CHECKING:
    from pathlib import Path

FACTORS = {"rope_freqs.weight": np.full(16, 8.0, np.float32)}


@pytest.fixture(params=[False, True], ids=["tensors in every part", "metadata first"])
def parts(request: pytest.FixtureRequest, llama: Path) -> tuple[Path, ...]:
    return split_model(llama, llama.with_name("split"), parts=3, metadata_first=request.param)


def test_a_rewrite_changes_the_first_part_and_undo_gives_it_back(parts: tuple[Path, ...]) -> None:
    original = [part.read_bytes() for part in parts]
    rewrite(parts[0], PlanRequest(target_length=8192))
    assert read_header(parts[0]).value("llama.context_length") == 8192
    assert [part.read_bytes() for part in parts[1:]] == original[1:]
    undo(parts[0])
    assert [part.read_bytes() for part in parts] == original


def test_undo_to_an_output_takes_the_other_parts_along(
    parts: tuple[Path, ...], tmp_path: Path
) -> None:
    original = [part.read_bytes() for part in parts]
    rewrite(parts[0], PlanRequest(target_length=8192))
    folder = tmp_path / "original"
    folder.mkdir()
    undo(parts[1], output=folder / parts[0].name)
    assert [(folder / part.name).read_bytes() for part in parts] == original


def test_a_later_part_stands_for_the_first(parts: tuple[Path, ...]) -> None:
    original = parts[0].read_bytes()
    assert rewrite(parts[2], PlanRequest(target_length=8192)).receipt.output == parts[0]
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
    rewrite(parts[0], PlanRequest(target_length=8192))
    edited = parts[0].read_bytes()
    parts[2].unlink()
    with pytest.raises(HeaderError) as caught:
        rewrite(parts[0], PlanRequest(target_length=16384))
    assert caught.value.code == "shard_missing"
    assert parts[0].read_bytes() == edited
    undo(parts[0])
    assert parts[0].read_bytes() == original


def test_factor_tensors_in_a_later_part_count(tmp_path: Path) -> None:
    model = write_random_model(tmp_path / "model.gguf", "llama", tensors=FACTORS)
    first, second = split_model(model, tmp_path / "split", parts=2)
    assert "rope_freqs.weight" in {tensor.name for tensor in read_header(second).tensors}
    assert facts_of(first).scaling.factor_tensors == ("rope_freqs.weight",)


def test_a_new_file_takes_the_other_parts_with_it(parts: tuple[Path, ...], tmp_path: Path) -> None:
    original = [part.read_bytes() for part in parts]
    folder = tmp_path / "new"
    folder.mkdir()
    output = folder / "long-00001-of-00003.gguf"
    rewrite(parts[1], PlanRequest(target_length=8192), output=output)
    found = inspect(output)
    assert [shard.path.name for shard in found.shards] == [
        f"long-0000{i}-of-00003.gguf" for i in (1, 2, 3)
    ]
    assert [part.read_bytes() for part in parts] == original
    assert [shard.path.read_bytes() for shard in found.shards[1:]] == original[1:]
    assert found.train_length is not None
    assert found.train_length.value == 8192
    undo(output)
    assert output.read_bytes() == original[0]


@pytest.mark.parametrize("name", ["long.gguf", "long-00001-of-00002.gguf"])
def test_a_new_name_by_which_the_parts_are_not_found_is_refused(
    parts: tuple[Path, ...], name: str
) -> None:
    before = sorted(parts[0].parent.iterdir())
    with pytest.raises(EditError, match=r"long-00001-of-00003\.gguf") as caught:
        rewrite(parts[0], PlanRequest(target_length=8192), output=parts[0].with_name(name))
    assert caught.value.code == "output_name"
    assert sorted(parts[0].parent.iterdir()) == before


def test_a_new_file_that_fails_leaves_no_part_behind(parts: tuple[Path, ...]) -> None:
    before = sorted(parts[0].parent.iterdir())
    output = parts[0].with_name("long-00001-of-00003.gguf")
    disk = RecordingDisk()
    rewrite(parts[0], PlanRequest(target_length=8192), output=output, files=disk)
    for at in range(len(disk.done)):
        for number in range(1, 4):
            output.with_name(f"long-0000{number}-of-00003.gguf").unlink(missing_ok=True)
        failing = FailingDisk(at)
        with suppress(OSError, EditError):
            rewrite(parts[0], PlanRequest(target_length=8192), output=output, files=failing)
        if failing.refused:
            assert sorted(parts[0].parent.iterdir()) == before


def test_a_split_model_gets_a_tensor_and_loses_it_again(llama: Path) -> None:
    parts = split_model(llama, llama.with_name("split"), parts=3)
    original = parts[0].read_bytes()
    rewrite(parts[0], PlanRequest(target_length=8192, method=Method.LLAMA3))
    assert inspect(parts[1]).tensor_count == read_header(parts[0]).value("split.tensors.count")
    undo(parts[0])
    assert parts[0].read_bytes() == original


def test_a_first_part_without_tensors_gets_none(llama: Path) -> None:
    first, *_ = split_model(llama, llama.with_name("split"), parts=3, metadata_first=True)
    original = first.read_bytes()
    with pytest.raises(EditError, match="gguf-split --merge") as caught:
        rewrite(first, PlanRequest(target_length=8192, method=Method.LLAMA3))
    assert caught.value.code == "tensors_not_supported"
    assert first.read_bytes() == original


def test_a_tensor_of_a_later_part_is_not_replaced(llama: Path) -> None:
    whole = llama.with_name("whole.gguf")
    rewrite(
        llama,
        PlanRequest(target_length=8192, method=Method.LLAMA3),
        output=whole,
        keep_history=False,
    )
    first, second = split_model(whole, llama.with_name("split"), parts=2)
    original = first.read_bytes()
    with pytest.raises(EditError, match="gguf-split --merge") as caught:
        rewrite(first, PlanRequest(target_length=16384, method=Method.LLAMA3, train_length=8192))
    assert (caught.value.code, caught.value.path) == ("not_first_shard", second)
    assert first.read_bytes() == original
