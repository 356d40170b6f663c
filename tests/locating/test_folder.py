"""A folder is a table: every model once, whatever else lies there."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from gguf_bytes import F32, I32, U16, U32, Tensor, gguf_bytes
from ggufext.errors import LocationError
from ggufext.locating.places import place_of

if TYPE_CHECKING:
    from pathlib import Path

KEYS = {
    "general.architecture": "llama",
    "llama.context_length": U32(4096),
    "llama.block_count": U32(1),
    "llama.embedding_length": U32(64),
    "llama.attention.head_count": U32(2),
}
MODEL = gguf_bytes(KEYS, [Tensor("token_embd.weight", (64, 4), "Q8_0")])


def test_models_are_found_in_all_folders_and_sorted(tmp_path: Path) -> None:
    for name in ("b.gguf", "a/deep/c.GGUF", "a/notes.txt", "blobs/sha256-0"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(MODEL)
    heard: list[tuple[int, int]] = []
    found = place_of(tmp_path, progress=lambda *told: heard.append(told))
    assert [model.name for model in found.models] == ["a/deep/c.GGUF", "b.gguf"]
    assert heard == [(1, 2), (2, 2)]


def split_set(folder: Path, *types: str) -> list[Path]:
    """A set with one tensor in each part but the first, which holds the metadata."""
    parts = []
    for number, type_ in enumerate(("", *types)):
        keys = {
            **(KEYS if number == 0 else {}),
            "split.no": U16(number),
            "split.count": U16(len(types) + 1),
            "split.tensors.count": I32(len(types)),
        }
        tensors = [Tensor(f"blk.{number}.weight", (64, 4), type_)] if type_ else []
        parts.append(folder / f"m-{number + 1:05d}-of-{len(types) + 1:05d}.gguf")
        parts[-1].write_bytes(gguf_bytes(keys, tensors))
    return parts


def test_a_split_set_counts_once_with_the_size_and_the_types_of_all_parts(tmp_path: Path) -> None:
    parts = split_set(tmp_path, "Q4_0", "Q4_0", "F32")
    (one,) = place_of(tmp_path).models
    assert (one.name, one.parts) == (parts[0].name, 4)
    assert one.size == sum(part.stat().st_size for part in parts)
    assert (one.architecture, one.quantization) == ("llama", "F32")


@pytest.mark.parametrize(("number", "architecture"), [(0, None), (2, "llama")])
def test_a_part_that_is_not_there_is_a_problem(
    tmp_path: Path, number: int, architecture: str | None
) -> None:
    split_set(tmp_path, "Q4_0", "Q4_0")[number].unlink()
    (one,) = place_of(tmp_path).models
    assert one.problems[0].code == "shard_missing"
    assert one.architecture == architecture


def test_sets_of_the_same_name_in_two_folders_are_two(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "m-00001-of-00001.gguf").write_bytes(MODEL)
    assert len(place_of(tmp_path).models) == 2


def test_links_in_a_circle_end_and_a_file_counts_once(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/m.gguf").write_bytes(MODEL)
    (tmp_path / "sub/back").symlink_to(tmp_path)
    (tmp_path / "z.gguf").symlink_to(tmp_path / "sub/m.gguf")
    os.link(tmp_path / "sub/m.gguf", tmp_path / "sub/n.gguf")
    assert [model.name for model in place_of(tmp_path).models] == ["sub/m.gguf"]


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "not_gguf"),
        (b"GGUF", "truncated"),
        (b"<html>", "not_gguf"),
        (gguf_bytes(), "missing_key"),
        (gguf_bytes(KEYS | {"general.architecture": "clip"}), "not_a_language_model"),
        (gguf_bytes(KEYS | {"llama.context_length": F32(4096.0)}), "wrong_type"),
        (gguf_bytes(KEYS), "no_tensors"),
    ],
)
def test_what_is_wrong_with_a_model_is_a_problem_in_its_line(
    tmp_path: Path, content: bytes, code: str
) -> None:
    (tmp_path / "m.gguf").write_bytes(content)
    (one,) = place_of(tmp_path).models
    assert code in [problem.code for problem in one.problems]
    assert one.size == len(content)


def test_a_link_that_leads_nowhere_is_a_problem_in_its_line(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").symlink_to(tmp_path / "gone")
    (one,) = place_of(tmp_path).models
    assert one.problems[0].code == "unreadable"


def test_a_line_says_what_the_header_says(tmp_path: Path) -> None:
    keys = KEYS | {"llama.rope.scaling.type": "yarn", "llama.rope.scaling.factor": F32(4.0)}
    (tmp_path / "m.gguf").write_bytes(
        gguf_bytes(keys, [Tensor("token_embd.weight", (64, 4), "Q8_0")])
    )
    (one,) = place_of(tmp_path).models
    assert (one.architecture, one.quantization) == ("llama", "Q8_0")
    assert one.train_length is not None
    assert one.train_length.value == 4096
    assert one.scaling is not None
    assert (one.scaling.type, one.scaling.factor) == ("yarn", 4.0)


def test_a_folder_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(LocationError) as caught:
        place_of(tmp_path / "absent")
    assert caught.value.code == "unreadable"
