"""A model is opened once: its header is read once, and every room gets what was read."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest

from gguf_bytes import SMALLEST_LLAMA, SMALLEST_TENSORS, U32, gguf_bytes
from ggufext import _core
from ggufext.editing.rewrite import recover, rewrite, undo
from ggufext.errors import GgufextError, PlanError
from ggufext.header.header import read_header
from ggufext.opened.files import FileSystem
from ggufext.opened.inspection import inspect
from ggufext.opened.model import facts_of, open_model
from ggufext.planning.methods import Method
from ggufext.planning.request import PlanRequest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def readings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was read as a header: a file, or bytes."""
    seen: list[str] = []
    read, parse = _core.HeaderIndex.open, _core.HeaderIndex.parse

    class Index:
        @staticmethod
        def open(fd: int) -> object:
            seen.append("file")
            return read(fd)

        @staticmethod
        def parse(data: bytes, *, file_size: int) -> object:
            seen.append("bytes")
            return parse(data, file_size=file_size)

    monkeypatch.setattr(_core, "HeaderIndex", Index)
    return seen


@pytest.mark.parametrize("method", [Method.YARN, Method.LLAMA3])
def test_a_header_is_read_once_and_new_bytes_are_checked_once(
    llama: Path, readings: list[str], method: Method
) -> None:
    def read_by(command: Callable[[], object]) -> list[str]:
        readings.clear()
        command()
        return readings.copy()

    shorter, longer = (PlanRequest(target_length=n, method=method) for n in (8192, 16_384))
    reading: list[Callable[[], object]] = [partial(inspect, llama), partial(facts_of, llama)]
    assert [read_by(command) for command in reading] == [["file"]] * 2
    assert read_by(lambda: rewrite(llama, shorter)) == ["file", "bytes"]
    # What the record leads back to is read from its bytes.
    assert [read_by(command) for command in reading] == [["file", "bytes"]] * 2
    assert read_by(lambda: rewrite(llama, longer)) == ["file", "bytes", "bytes"]
    assert read_by(lambda: undo(llama, check=True)) == ["file", "bytes"]
    assert read_by(lambda: undo(llama)) == ["file", "bytes"]
    assert read_by(lambda: recover(llama)) == ["file"]


def test_a_file_that_changes_while_it_is_opened_is_refused(llama: Path) -> None:
    class Growing(FileSystem):
        def read(self, descriptor: int, offset: int, size: int) -> bytes:
            with llama.open("ab") as file:
                file.write(b"x")
            return super().read(descriptor, offset, size)

    with pytest.raises(GgufextError) as caught, open_model(llama, files=Growing()):
        pass
    assert caught.value.code == "changed_meanwhile"
    assert caught.value.path == llama


def test_values_come_from_memory_once_a_model_is_open(llama: Path) -> None:
    with open_model(llama) as model:
        header = model.header
    large = max(header.keys.values(), key=lambda entry: entry.end - entry.start)
    assert large.end - large.start > 4096
    expected = read_header(llama).value(large.key)
    llama.unlink()
    assert header.value(large.key) == expected


def test_facts_are_computed_once_for_each_training(llama: Path) -> None:
    with open_model(llama) as model:
        first = model.original_facts(PlanRequest(target_length=8192))
        assert model.original_facts(PlanRequest(target_length=16_384)) is first
        assert model.original_facts() is first
        shorter = model.original_facts(PlanRequest(target_length=8192, train_length=1024))
        assert shorter.train_length == 1024
        assert model.facts is model.facts


def test_a_file_that_would_not_load_is_inspected_and_not_planned(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    keys = dict(SMALLEST_LLAMA, **{"llama.rope.scaling.original_context_length": U32(1024)})
    del keys["tokenizer.ggml.model"]
    path.write_bytes(gguf_bytes(keys, SMALLEST_TENSORS))
    found = inspect(path)
    assert "would_not_load" in [warning.code for warning in found.warnings]
    assert found.earlier_extension is None
    with pytest.raises(GgufextError) as caught:
        facts_of(path)
    assert caught.value.code == "would_not_load"


def test_a_plan_that_is_refused_while_a_model_is_open_is_said_of_its_file(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(gguf_bytes(SMALLEST_LLAMA, SMALLEST_TENSORS))
    for named in (None, tmp_path / "recipe.json"):
        with pytest.raises(PlanError) as caught, open_model(path):
            raise PlanError(code="bad_recipe", message="", path=named)
        assert caught.value.path == (named or path)
