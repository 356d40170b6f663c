"""Readers that are not ours: which one reads a rewritten file, and what it is compared with."""

from __future__ import annotations

import os
import struct
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from gguf_bytes import (
    FORMATS,
    INT32,
    STRING,
    Array,
    Raw,
    Tensor,
    gguf_bytes,
)
from ggufext.editing.rewrite import rewrite
from ggufext.errors import EditError, EngineError
from ggufext.header.header import read_header
from ggufext.llama.expectation import verify_file
from ggufext.llama.settings import LoadRequest
from ggufext.planning.methods import Method
from ggufext.planning.request import PlanRequest
from llama_here import needs_llama_cpp

if TYPE_CHECKING:
    from pathlib import Path

    from ggufext.llama.process import LlamaProcess
    from ggufext.planning.result import Plan

needs_llama_cpp()


SCALARS: dict[str, Any] = {
    f"scalar.{type_}": Raw(type_, struct.pack(form, 0.1 if form in {"<f", "<d"} else 7))
    for type_, form in FORMATS.items()
}


def read(
    probe: LlamaProcess, path: Path, keys: tuple[str, ...] = (), tensors: tuple[str, ...] = ()
) -> dict[str, Any]:
    load = LoadRequest(path=path)
    return probe.request(path, "values", load=load, keys=keys, tensors=tensors)[0]


def test_llama_cpps_reader_and_ours_agree_about_scalars_of_every_type(
    probe: LlamaProcess, tmp_path: Path
) -> None:
    path = tmp_path / "scalars.gguf"
    keys = SCALARS | {"text": "é€ \\n", "empty": "", "negative": Raw(INT32, struct.pack("<i", -7))}
    path.write_bytes(gguf_bytes(keys))
    header = read_header(path)
    found = read(probe, path, tuple(keys))["keys"]
    assert found == {key: header.value(key) for key in keys}
    assert {type(value) for value in found.values()} == {bool, int, float, str}


def test_llama_cpps_reader_gives_nothing_for_what_is_absent_or_no_scalar(
    probe: LlamaProcess, tmp_path: Path
) -> None:
    path = tmp_path / "arrays.gguf"
    tensors = [Tensor("half", (4,), "F16"), Tensor("whole", (4,), "F32")]
    path.write_bytes(gguf_bytes({"words": Array(STRING, ("a", "b"))}, tensors))
    found = read(probe, path, ("words", "word"), ("half", "none", "whole"))
    assert found["keys"] == {"words": None, "word": None}
    assert found["tensors"]["half"] is None
    assert found["tensors"]["none"] is None
    assert len(found["tensors"]["whole"]) == 4


@pytest.mark.parametrize("content", [b"", b"GGUF", b"<html>", b"GGUF\x03\0\0\0" + b"\xff" * 60])
def test_file_that_llama_cpp_cannot_read_is_an_error(
    probe: LlamaProcess, tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "broken.gguf"
    path.write_bytes(content)
    with pytest.raises(EngineError) as refused:
        read(probe, path, ("any",))
    assert refused.value.code == "model_not_loaded"


def test_values_are_read_from_a_file_whose_name_is_no_text(
    probe: LlamaProcess, tmp_path: Path
) -> None:
    path = tmp_path / os.fsdecode(b"caf\xe9 model.gguf")
    path.write_bytes(gguf_bytes({"text": "here"}, [Tensor("whole", (4,), "F32")]))
    found = read(probe, path, ("text",), ("whole",))
    assert found["keys"] == {"text": "here"}
    assert len(found["tensors"]["whole"]) == 4


@pytest.fixture(params=["llama.cpp's GGUF reader", "gguf-py"])
def reader(request: pytest.FixtureRequest) -> str:
    """Who reads, with llama.cpp and without."""
    if request.param == "gguf-py":
        request.getfixturevalue("without_llama_cpp")
    return str(request.param)


@pytest.fixture
def extended(llama: Path) -> tuple[Path, Plan]:
    """A rewritten model and its plan, keys and a tensor."""
    done = rewrite(llama, PlanRequest(target_length=4096, method=Method.YARN, keep_short=True))
    return llama, done.plan


def test_what_was_read_and_by_whom_is_said(reader: str, extended: tuple[Path, Plan]) -> None:
    path, plan = extended
    assert len(plan.tensor_edits) == 1
    values, rotation = verify_file(path, plan)
    assert values == f"{reader} reads {len(plan.edits)} values and 1 tensor of factors as written"
    assert rotation.startswith("llama.cpp")


@pytest.mark.parametrize("number", range(3))
def test_another_value_than_planned_is_found(
    reader: str, extended: tuple[Path, Plan], number: int
) -> None:
    path, plan = extended
    edit = plan.edits[number]
    other = replace(edit, after="other" if isinstance(edit.after, str) else 77)
    edits = (*plan.edits[:number], other, *plan.edits[number + 1 :])
    with pytest.raises(EditError) as refused:
        verify_file(path, replace(plan, edits=edits))
    assert refused.value.code == "not_verified"
    found = f"{reader} reads {edit.key} as {edit.after!r}, planned {other.after!r}"
    assert found in refused.value.message


def test_another_tensor_than_planned_is_found(reader: str, extended: tuple[Path, Plan]) -> None:
    path, plan = extended
    (edit,) = plan.tensor_edits
    for other in (
        replace(edit, after=(*edit.after[:-1], edit.after[-1] * 2)),
        replace(edit, name="rope_factors_other.weight"),
    ):
        with pytest.raises(EditError, match=f"{reader} does not read the planned factors"):
            verify_file(path, replace(plan, tensor_edits=(other,)))


def test_every_reader_is_announced(reader: str, llama: Path) -> None:
    done = rewrite(llama, PlanRequest(target_length=4096, method=Method.NTK))
    said: list[str] = []
    verify_file(llama, done.plan, notify=said.append)
    assert f"{reader} reads the file" in said[-1 if reader == "gguf-py" else 0]
    assert ("llama.cpp loads the file" in said) == (reader != "gguf-py")


def test_values_are_not_read_by_gguf_py_where_llama_cpp_is_installed(
    llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = rewrite(llama, PlanRequest(target_length=4096, method=Method.NTK))
    monkeypatch.setattr("gguf.GGUFReader", None)
    assert len(verify_file(llama, done.plan)) == 2
