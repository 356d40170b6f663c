"""Models in several files: which sets are accepted, and what is said of the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gguf_bytes import I32, U16, U32, Tensor, gguf_bytes
from ggufext.errors import HeaderError
from ggufext.header.header import read_header
from ggufext.header.shards import first_shard, later_shards, shard_name

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

COUNT = 3


def name_of(number: int, count: int = COUNT) -> str:
    return f"model-{number + 1:05d}-of-{count:05d}.gguf"


def write_set(folder: Path, **changes: dict[str, object]) -> Path:
    """Three parts with a tensor each; `changes` replaces keys of part0, part1 or part2."""
    for number in range(COUNT):
        keys: dict[str, object] = {"general.architecture": "llama"} if number == 0 else {}
        keys |= {
            "split.no": U16(number),
            "split.count": U16(COUNT),
            "split.tensors.count": I32(COUNT),
        }
        changed = keys | changes.get(f"part{number}", {})
        kept = {key: value for key, value in changed.items() if value is not None}
        tensor = Tensor(f"blk.{number}.attn_q.weight", (32, 4))
        (folder / name_of(number)).write_bytes(gguf_bytes(keys=kept, tensors=[tensor]))
    return folder / name_of(0)


def refusal(path: Path) -> HeaderError:
    with pytest.raises(HeaderError) as caught:
        later_shards(read_header(path))
    return caught.value


def test_the_name_of_a_shard_is_understood() -> None:
    name = shard_name("some-model-00002-of-00010.gguf")
    assert name is not None
    assert (name.prefix, name.number, name.total) == ("some-model", 2, 10)
    assert str(name.numbered(1)) == "some-model-00001-of-00010.gguf"


@pytest.mark.parametrize(
    "name", ["model.gguf", "model-1-of-3.gguf", "-00001-of-00003.gguf", "m-00001-of-00003.bin"]
)
def test_other_names_are_no_shards(name: str) -> None:
    assert shard_name(name) is None


def test_the_other_parts_are_found_beside_the_first(tmp_path: Path) -> None:
    parts = later_shards(read_header(write_set(tmp_path)))
    assert [part.path for part in parts] == [tmp_path / name_of(1), tmp_path / name_of(2)]


@pytest.mark.parametrize("keys", [{}, {"split.count": U16(0)}, {"split.count": U16(1)}])
def test_a_model_in_one_file_has_no_other_parts(tmp_path: Path, keys: dict[str, object]) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(gguf_bytes(keys={"general.architecture": "llama", **keys}))
    assert later_shards(read_header(path)) == ()


@pytest.mark.parametrize("number", range(COUNT))
def test_every_part_leads_to_the_first(tmp_path: Path, number: int) -> None:
    first = write_set(tmp_path)
    assert first_shard(tmp_path / name_of(number)) == first


def test_a_file_that_is_only_named_like_a_part_stands_for_itself(tmp_path: Path) -> None:
    path = tmp_path / name_of(1)
    path.write_bytes(gguf_bytes(keys={"general.architecture": "llama"}))
    assert first_shard(path) == path


def test_missing_parts_are_named(tmp_path: Path) -> None:
    path = write_set(tmp_path)
    (tmp_path / name_of(2)).unlink()
    error = refusal(path)
    assert error.code == "shard_missing"
    assert name_of(2) in error.message
    assert name_of(1) not in error.message


@pytest.mark.parametrize(
    "rename",
    [lambda path: path.with_name("renamed.gguf"), lambda path: path.with_name(name_of(0, 4))],
)
def test_a_first_part_by_another_name_is_told_the_name_that_is_expected(
    tmp_path: Path, rename: Callable[[Path], Path]
) -> None:
    path = write_set(tmp_path)
    renamed = rename(path)
    path.rename(renamed)
    error = refusal(renamed)
    assert error.code == "shard_mismatch"
    assert "-00001-of-00003.gguf" in error.message


@pytest.mark.parametrize(
    ("changes", "code", "field"),
    [
        ({"part1": {"split.no": U16(2)}}, "shard_mismatch", "split.no"),
        ({"part1": {"split.no": None}}, "missing_key", "split.no"),
        ({"part1": {"split.no": U32(1)}}, "wrong_type", "split.no"),
        ({"part2": {"split.count": U16(4)}}, "shard_mismatch", "split.count"),
        ({"part2": {"split.count": I32(3)}}, "wrong_type", "split.count"),
        ({"part0": {"split.count": U32(3)}}, "wrong_type", "split.count"),
        ({"part0": {"split.no": U16(1)}}, "shard_mismatch", "split.no"),
        ({"part0": {"split.tensors.count": None}}, "missing_key", "split.tensors.count"),
        ({"part0": {"split.tensors.count": U32(3)}}, "wrong_type", "split.tensors.count"),
        ({"part0": {"split.tensors.count": I32(4)}}, "shard_mismatch", "split.tensors.count"),
    ],
)
def test_parts_that_do_not_fit_together_are_refused_by_key(
    tmp_path: Path, changes: dict[str, dict[str, object]], code: str, field: str
) -> None:
    error = refusal(write_set(tmp_path, **changes))
    assert (error.code, error.field) == (code, field)


def test_a_tensor_in_two_parts_is_refused(tmp_path: Path) -> None:
    path = write_set(tmp_path)
    keys = {"split.no": U16(2), "split.count": U16(COUNT), "split.tensors.count": I32(COUNT)}
    twin = Tensor("blk.0.attn_q.weight", (32, 4))
    (tmp_path / name_of(2)).write_bytes(gguf_bytes(keys=keys, tensors=[twin]))
    error = refusal(path)
    assert (error.code, error.field) == ("duplicate_tensor", "blk.0.attn_q.weight")


def test_a_part_that_is_cut_off_is_refused_by_its_own_name(tmp_path: Path) -> None:
    path = write_set(tmp_path)
    part = tmp_path / name_of(1)
    part.write_bytes(part.read_bytes()[:-200])
    error = refusal(path)
    assert error.code == "data_past_end"
    assert error.path == part
