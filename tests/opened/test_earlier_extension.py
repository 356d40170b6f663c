"""A file that was extended before and copied by another tool is planned from its original."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest

from gguf_bytes import (
    F32,
    SMALLEST_LLAMA,
    SMALLEST_TENSORS,
    U32,
    gguf_bytes,
    key_bytes,
)
from ggufext.editing.rewrite import rewrite
from ggufext.errors import PlanError
from ggufext.header.facts import EarlierExtension
from ggufext.header.header import parse_header, read_header
from ggufext.llama.expectation import verify_file
from ggufext.opened import history
from ggufext.opened.inspection import inspect
from ggufext.opened.model import facts_of
from ggufext.opened.patch import HISTORY_KEY
from ggufext.opened.restoration import copied_extension
from ggufext.planning.methods import Method
from ggufext.planning.plan import plan
from ggufext.planning.request import Factors, PlanRequest, Recipe
from llama_here import needs_llama_cpp
from random_model import write_random_model
from split_model import split_model

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ggufext.planning.result import Plan
    from random_model import MetadataValue

TRAINED, EXTENDED, TARGET = 256, 512, 1024
IN_METADATA = ("gamma", "ntk", "yarn", "linear")
FACTORS = Recipe(Method.LONGROPE, factors=Factors(tuple(1.0 + i / 8 for i in range(16))))


def new_metadata(path: Path, copy: Path) -> None:
    """gguf-py's tool that copies a model to change one key."""
    _gguf("gguf_new_metadata", path, copy, "--general-name", "Another name")


def set_metadata(path: Path, copy: Path) -> None:
    """gguf-py's tool that changes one key in place."""
    copy.write_bytes(path.read_bytes())
    _gguf("gguf_set_metadata", copy, "general.quantization_version", "3", "--force")


def quantize(path: Path, copy: Path) -> None:
    """llama.cpp's quantization, which puts the tensors in another order."""
    llama_cpp = pytest.importorskip("llama_cpp", reason="quantizes with llama-cpp-python")
    settings = llama_cpp.llama_model_quantize_default_params()
    settings.ftype, settings.nthread = llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0, 1
    names = (str(name).encode() for name in (path, copy))
    assert llama_cpp.llama_model_quantize(*names, ctypes.byref(settings)) == 0


def _gguf(script: str, *arguments: object) -> None:
    command = [sys.executable, "-m", f"gguf.scripts.{script}", *map(str, arguments)]
    subprocess.run(command, check=True, capture_output=True)


TOOLS = (new_metadata, set_metadata, quantize)
every_tool = pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.__name__)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    folder = tmp_path_factory.mktemp("trained")

    def model(architecture: str) -> Path:
        path = folder / f"{architecture}.gguf"
        base = {f"{architecture}.rope.freq_base": 500.0}
        if not path.exists():
            write_random_model(path, architecture, context=TRAINED, type="F16", metadata=base)
        return path

    return model


def extended(path: Path, form: str, target: int, *, keep_history: bool = True) -> Plan:
    method, _, keep_short = form.partition("+")
    return rewrite(
        path,
        PlanRequest(
            target_length=target,
            method=Method(method),
            recipe=FACTORS if form == "longrope" else None,
            keep_short=bool(keep_short),
        ),
        keep_history=keep_history,
    ).plan


def from_original(path: Path, form: str) -> Plan:
    method, _, keep_short = form.partition("+")
    return plan(
        facts_of(path),
        PlanRequest(
            target_length=TARGET,
            method=Method(method),
            recipe=FACTORS if form == "longrope" else None,
            keep_short=bool(keep_short),
        ),
    )


def check_same(made: Plan, original: Plan) -> None:
    for name in ("train_length", "factor", "inv_freq", "attention_factor", "original_length"):
        assert getattr(made, name) == getattr(original, name), name
    assert made.freq_base == original.freq_base
    assert "extended_before" in {warning.code for warning in made.warnings}
    assert "extended_before" not in {warning.code for warning in original.warnings}


@every_tool
@pytest.mark.parametrize("form", IN_METADATA)
def test_a_copy_is_planned_and_rewritten_from_the_original(
    tool: Callable[[Path, Path], None], form: str, models: Callable[[str], Path], tmp_path: Path
) -> None:
    needs_llama_cpp()
    edited, copy = tmp_path / "edited.gguf", tmp_path / "copy.gguf"
    edited.write_bytes(models("llama").read_bytes())
    extended(edited, form, EXTENDED)
    tool(edited, copy)
    content = copy.read_bytes()
    for again in ("yarn", "gamma", "llama3", "gamma+keep-short"):
        copy.write_bytes(content)
        made = extended(copy, again, TARGET)
        check_same(made, from_original(models("llama"), again))
        assert len(verify_file(copy, made)) == 2


@every_tool
@pytest.mark.parametrize(
    ("architecture", "form", "again"),
    [
        ("llama", "llama3", "gamma"),
        ("llama", "llama3", "yarn"),
        ("llama", "llama3", "llama3"),
        ("llama", "gamma+keep-short", "longrope"),
        ("llama", "longrope", "gamma+keep-short"),
        ("phi3", "gamma+keep-short", "gamma"),
        ("phi3", "gamma+keep-short", "yarn"),
        ("phi3", "longrope", "linear"),
    ],
)
def test_a_tensor_that_stays_in_a_copy_divides_by_1_where_the_plan_has_none(
    tool: Callable[[Path, Path], None],
    architecture: str,
    form: str,
    again: str,
    models: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    needs_llama_cpp()
    edited, copy = tmp_path / "edited.gguf", tmp_path / "copy.gguf"
    edited.write_bytes(models(architecture).read_bytes())
    extended(edited, form, EXTENDED)
    tool(edited, copy)
    made = extended(copy, again, TARGET)
    check_same(made, from_original(models(architecture), again))
    assert len(verify_file(copy, made)) == 2


@pytest.mark.parametrize(
    ("form", "again"), [("gamma+keep-short", "gamma"), ("llama3", "gamma+keep-short")]
)
def test_a_tensor_with_which_llama_cpp_would_not_load_the_plan_is_named(
    form: str, again: str, models: Callable[[str], Path], tmp_path: Path
) -> None:
    edited, copy = tmp_path / "edited.gguf", tmp_path / "copy.gguf"
    edited.write_bytes(models("llama").read_bytes())
    extended(edited, form, EXTENDED)
    new_metadata(edited, copy)
    content = copy.read_bytes()
    with pytest.raises(PlanError, match="stays in the file") as caught:
        extended(copy, again, TARGET)
    assert caught.value.code == "cannot_combine"
    assert copy.read_bytes() == content


def test_the_trained_tensor_is_what_a_copy_is_planned_from(tmp_path: Path) -> None:
    """Phi-3 128k: an extension overwrote the model's own long factors."""
    tensors = {
        "rope_factors_long.weight": np.linspace(1.0, 8.0, 16, dtype=np.float32),
        "rope_factors_short.weight": np.linspace(1.0, 2.0, 16, dtype=np.float32),
    }
    keys: dict[str, MetadataValue] = {
        "phi3.rope.scaling.type": "longrope",
        "phi3.rope.scaling.original_context_length": 512,
    }
    path = tmp_path / "m.gguf"
    write_random_model(path, "phi3", context=1024, metadata=keys, tensors=tensors)
    original = facts_of(path)
    extended(path, "gamma", 2048)
    copy = tmp_path / "copy.gguf"
    new_metadata(path, copy)
    found = facts_of(copy)
    assert found.factors == original.factors
    assert found.train_length == 1024
    made = extended(copy, "linear", 4096)
    assert (
        made.inv_freq
        == plan(original, PlanRequest(target_length=4096, method=Method.LINEAR)).inv_freq
    )


def test_inspect_names_what_undo_cannot_take_back(llama: Path) -> None:
    rewrite(llama, PlanRequest(target_length=8192))
    copy = llama.with_name("copy.gguf")
    new_metadata(llama, copy)
    found = inspect(copy)
    assert found.history is None
    assert found.earlier_extension == EarlierExtension(2048, 8192, "gamma", True)
    assert "history_mismatch" in {warning.code for warning in found.warnings}


def test_the_first_part_of_a_split_model_is_planned_from_the_original(llama: Path) -> None:
    parts = split_model(llama, llama.with_name("split"), parts=3)
    rewrite(parts[0], PlanRequest(target_length=8192, method=Method.NTK))
    copy = llama.with_name("copy.gguf")
    new_metadata(parts[0], copy)
    copy.rename(parts[0])
    found = facts_of(parts[1])
    assert (found.train_length, found.freq_base) == (2048, 10000.0)
    assert found.earlier_extension == EarlierExtension(2048, 8192, "ntk", True)


@pytest.mark.parametrize("method", [Method.GAMMA, Method.NTK])
def test_without_a_record_the_base_is_asked_for(llama: Path, method: Method) -> None:
    native = plan(facts_of(llama), PlanRequest(target_length=16384, method=Method.YARN))
    rewrite(llama, PlanRequest(target_length=8192, method=method), keep_history=False)
    content = llama.read_bytes()
    with pytest.raises(PlanError, match="--train-freq-base") as caught:
        rewrite(llama, PlanRequest(target_length=16384))
    assert caught.value.code == "train_base_unknown"
    assert llama.read_bytes() == content
    made = rewrite(
        llama, PlanRequest(target_length=16384, method=Method.YARN, train_freq_base=1e4)
    ).plan
    assert made.inv_freq == native.inv_freq
    assert read_header(llama).value("llama.rope.freq_base") == 1e4


def test_without_a_record_yarn_and_linear_are_extended_in_kind(llama: Path) -> None:
    rewrite(llama, PlanRequest(target_length=8192, method=Method.YARN), keep_history=False)
    made = rewrite(llama, PlanRequest(target_length=16384, method=Method.YARN)).plan
    assert (made.freq_scale_factor, made.original_length) == (8.0, 2048)
    assert made.earlier_extension is None


def test_without_a_record_llama3_factors_tell_their_original_length(
    models: Callable[[str], Path], tmp_path: Path
) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(models("llama").read_bytes())
    extended(path, "llama3", EXTENDED, keep_history=False)
    made = plan(facts_of(path), PlanRequest(target_length=TARGET))
    assert made.inv_freq == from_original(models("llama"), "gamma").inv_freq


def test_without_a_record_long_factors_alone_are_an_extension(
    models: Callable[[str], Path], tmp_path: Path
) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(models("phi3").read_bytes())
    extended(path, "gamma+keep-short", EXTENDED, keep_history=False)
    made = plan(facts_of(path), PlanRequest(target_length=TARGET))
    assert made.inv_freq == from_original(models("phi3"), "gamma").inv_freq


def _with_record(original: dict[str, bytes | None]) -> bytes:
    record = history.History(
        tool="ggufext 0.1.0",
        time="2026-01-01T00:00:00+00:00",
        method="gamma",
        target_length=8192,
        size=1,
        data_offset=1,
        header_sha256="",
        tensors_sha256="",
        edited_sha256="",
        original=tuple(original.items()),
        tensors=(),
        start=b"",
        end=b"",
        layout=(),
    )
    extended = {
        "llama.context_length": U32(8192),
        "llama.rope.freq_base": F32(4e4),
        HISTORY_KEY: record.encode(),
    }
    return gguf_bytes({**SMALLEST_LLAMA, **extended}, SMALLEST_TENSORS)


@pytest.mark.parametrize(
    "original",
    [
        {},
        {"llama.context_length": b""},
        {"llama.context_length": bytes(3)},
        {"general.architecture": None},
        {"llama.block_count": None},
        {"llama.context_length": None},
        # An entry of another key, and a context length that is text.
        {"llama.rope.freq_base": key_bytes("x", U32(1))},
        {"llama.context_length": key_bytes("llama.context_length", "x")},
    ],
)
def test_a_record_that_makes_no_sense_is_none(original: dict[str, bytes | None]) -> None:
    data = _with_record(original)
    header = parse_header(data, file_size=len(data))
    record = history.in_file(header)
    assert record is not None
    assert copied_extension(header, data[: header.data_offset], record) is None


def test_a_record_changes_no_key_that_plans_do_not_write(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(_with_record({"llama.rope.freq_base": None, "llama.block_count": None}))
    found = facts_of(path)
    assert len(found.layers) == 1
    assert found.freq_base == 1e4
