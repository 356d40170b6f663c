"""Factor tensors in a file: appended, overwritten, replaced, dropped, and taken back."""

from __future__ import annotations

import base64
import json
import shutil
import zlib
from itertools import product
from typing import TYPE_CHECKING, Any

import gguf
import numpy as np
import pytest

from gguf_bytes import I32, SMALLEST_LLAMA, SMALLEST_TENSORS, U16, Tensor, gguf_bytes
from ggufext.editing.rewrite import rewrite, undo
from ggufext.errors import EditError, GgufextError, JournalError
from ggufext.header.frequencies import (
    ROPE_FACTORS_LONG,
    ROPE_FREQS,
    inverse_frequencies,
    llama3_factors,
)
from ggufext.header.header import read_header
from ggufext.opened import history, strategies
from ggufext.opened.model import facts_of
from ggufext.opened.patch import HISTORY_KEY, PADDING_KEY
from ggufext.opened.restoration import restore
from ggufext.opened.strategies import Strategy
from ggufext.planning.methods import Method
from ggufext.planning.request import PlanRequest, decode_recipe
from random_model import write_random_model

if TYPE_CHECKING:
    from pathlib import Path

#: Four bytes behind a multiple of 32.
UNEVEN = Tensor("blk.0.attn_q.scale", (1,))

#: Plans that leave another set of tensors each.
REQUESTS: tuple[dict[str, Any], ...] = (
    {"method": Method.LLAMA3},
    {"method": Method.YARN, "keep_short": True},
    {"method": Method.GAMMA},
)


def tensors_of(path: Path) -> dict[str, bytes]:
    return {tensor.name: bytes(tensor.data) for tensor in gguf.GGUFReader(path).tensors}


def test_a_tensor_is_appended_and_every_other_keeps_its_bytes(llama: Path) -> None:
    before = tensors_of(llama)
    made = rewrite(llama, PlanRequest(target_length=8192, method=Method.LLAMA3)).plan
    after = tensors_of(llama)
    factors = np.frombuffer(after.pop(ROPE_FREQS), dtype="<f4")
    assert tuple(factors.tolist()) == made.tensor_edits[0].after
    assert after == before


def test_a_tensor_that_the_model_brings_is_overwritten_where_it_stands(llama: Path) -> None:
    factors = llama3_factors(inverse_frequencies(10_000.0, 32), 4.0, 512)
    write_random_model(llama, tensors={ROPE_FREQS: np.array(factors, dtype=np.float32)})
    original, before = llama.read_bytes(), read_header(llama)
    rewrite(llama, PlanRequest(target_length=8192, method=Method.LLAMA3))
    after = read_header(llama)
    assert after.tensors == before.tensors
    assert tensors_of(llama)[ROPE_FREQS] != original[-64:]
    growth = after.file_size - before.file_size
    assert (
        llama.read_bytes()[before.data_offset + growth : -64] == original[before.data_offset : -64]
    )
    undo(llama)
    assert llama.read_bytes() == original


@pytest.mark.parametrize(
    ("first", "second"), list(product(REQUESTS, REQUESTS)), ids=lambda r: str(r["method"].value)
)
def test_a_plan_over_an_earlier_one_leaves_the_tensors_that_it_needs(
    llama: Path, first: dict[str, Any], second: dict[str, Any]
) -> None:
    original = llama.read_bytes()
    direct = llama.with_name("direct.gguf")
    shutil.copy(llama, direct)
    rewrite(llama, PlanRequest(target_length=8192, **first))
    rewrite(llama, PlanRequest(target_length=16384, **second))
    rewrite(direct, PlanRequest(target_length=16384, **second))
    assert tensors_of(llama) == tensors_of(direct)
    undo(llama)
    assert llama.read_bytes() == original


@pytest.mark.parametrize("alignment", [8, 32, 64, 8192])
@pytest.mark.parametrize("last", [(), (UNEVEN,)], ids=["even", "uneven"])
@pytest.mark.parametrize("pad_last", [True, False], ids=["padded", "unpadded"])
@pytest.mark.parametrize("version", [2, 3])
def test_undo_is_exact_for_every_layout_of_a_file(
    tmp_path: Path, alignment: int, last: tuple[Tensor, ...], pad_last: bool, version: int
) -> None:
    path = tmp_path / "m.gguf"
    content = gguf_bytes(
        SMALLEST_LLAMA, (*SMALLEST_TENSORS, *last), alignment=alignment, pad_last=pad_last,
        version=version,
    )  # fmt: skip
    path.write_bytes(content)
    before = {tensor.name: tensor.size for tensor in read_header(path).tensors}
    for request in REQUESTS:
        rewrite(path, PlanRequest(target_length=8192, **request))
        header = read_header(path)
        appended = [tensor for tensor in header.tensors if tensor.name not in before]
        assert all(tensor.offset % alignment == 0 for tensor in appended)
        assert header.file_size <= header.data_offset + sum(
            tensor.size + alignment for tensor in header.tensors
        )
    rewrite(path, PlanRequest(target_length=8192, method=Method.LLAMA3))
    undo(path, output=tmp_path / "original.gguf")
    assert (tmp_path / "original.gguf").read_bytes() == content
    undo(path)
    assert path.read_bytes() == content


def test_a_copy_holds_the_same_as_an_edit_in_place(llama: Path, inserting: int) -> None:
    copied = llama.with_name("copied.gguf")
    shutil.copy(llama, copied)
    original = llama.read_bytes()
    for request in REQUESTS:
        rewrite(llama, PlanRequest(target_length=8192, **request))
        rewrite(copied, PlanRequest(target_length=8192, **request), strategy=Strategy.COPY)
        assert tensors_of(copied) == tensors_of(llama)
    undo(copied)
    assert copied.read_bytes() == original


def test_an_output_without_history_has_the_tensor_and_no_trace(llama: Path) -> None:
    output = llama.with_name("new.gguf")
    original = llama.read_bytes()
    rewrite(
        llama,
        PlanRequest(target_length=8192, method=Method.LLAMA3),
        output=output,
        keep_history=False,
    )
    header = read_header(output)
    assert header.tensors[-1].name == ROPE_FREQS
    assert not {HISTORY_KEY, PADDING_KEY} & set(header.keys)
    assert llama.read_bytes() == original
    assert facts_of(output).factors[0][0] == ROPE_FREQS


def test_an_edit_that_changes_nothing_in_the_tensors_writes_nothing(llama: Path) -> None:
    request: dict[str, Any] = {"method": Method.YARN, "keep_short": True}
    rewrite(llama, PlanRequest(target_length=8192, **request))
    assert rewrite(llama, PlanRequest(target_length=8192, **request)).receipt.strategy is None


def test_where_the_header_must_grow_while_a_tensor_goes_the_file_is_copied(
    tmp_path: Path, inserting: int
) -> None:
    path = tmp_path / "m.gguf"
    # No history and no filler, so the room that the tensor's description leaves is not enough.
    path.write_bytes(gguf_bytes(SMALLEST_LLAMA, SMALLEST_TENSORS))
    original = path.read_bytes()
    rewrite(path, PlanRequest(target_length=8192, method=Method.LLAMA3))
    done = rewrite(path, PlanRequest(target_length=8192, method=Method.NTK))
    assert done.receipt.strategy in {Strategy.OVERWRITE, Strategy.COPY}
    undo(path)
    assert path.read_bytes() == original


def test_without_inserting_a_tensor_means_a_copy(
    llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(strategies, "insert_block", lambda *_: None)
    original = llama.read_bytes()
    done = rewrite(llama, PlanRequest(target_length=8192, method=Method.LLAMA3))
    assert done.receipt.strategy is Strategy.COPY
    undo(llama)
    assert llama.read_bytes() == original


def test_nothing_is_appended_behind_bytes_that_belong_to_no_tensor(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(gguf_bytes(SMALLEST_LLAMA, SMALLEST_TENSORS) + b"x" * 100)
    content = path.read_bytes()
    with pytest.raises(EditError) as caught:
        rewrite(path, PlanRequest(target_length=8192, method=Method.LLAMA3))
    assert caught.value.code == "tensors_not_supported"
    assert "100 bytes" in caught.value.message
    assert path.read_bytes() == content


def test_a_vocabulary_without_tensors_gets_none(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(gguf_bytes(SMALLEST_LLAMA))
    with pytest.raises(EditError) as caught:
        rewrite(path, PlanRequest(target_length=8192, method=Method.LLAMA3))
    assert caught.value.code == "tensors_not_supported"


def test_a_split_model_counts_the_new_tensor(tmp_path: Path) -> None:
    keys = {"split.no": U16(0), "split.count": U16(1), "split.tensors.count": I32(11)}
    path = tmp_path / "m.gguf"
    path.write_bytes(gguf_bytes({**SMALLEST_LLAMA, **keys}, SMALLEST_TENSORS))
    original = path.read_bytes()
    rewrite(path, PlanRequest(target_length=8192, method=Method.LLAMA3))
    assert read_header(path).value("split.tensors.count") == 12
    rewrite(path, PlanRequest(target_length=8192, method=Method.GAMMA))
    assert read_header(path).value("split.tensors.count") == 11
    undo(path)
    assert path.read_bytes() == original


FORGED: dict[str, dict[str, bytes | None]] = {
    "another tensor": {"token_embd.weight": bytes(4)},
    "another size": {ROPE_FREQS: bytes(4)},
    "two appended": {ROPE_FREQS: None, ROPE_FACTORS_LONG: None},
    "the wrong name": {ROPE_FACTORS_LONG: None},
    "nothing appended": {},
}


@pytest.mark.parametrize("forged", FORGED.values(), ids=FORGED)
def test_a_forged_record_of_tensors_is_refused(
    llama: Path, forged: dict[str, bytes | None]
) -> None:
    rewrite(llama, PlanRequest(target_length=8192, method=Method.LLAMA3))
    header = read_header(llama)
    text = header.value(HISTORY_KEY)
    assert isinstance(text, str)
    record = json.loads(text)
    record["tensors"] = {
        name: None if data is None else base64.b64encode(zlib.compress(data)).decode()
        for name, data in forged.items()
    }
    forged_record = history.decode(json.dumps(record))
    content = llama.read_bytes()
    with pytest.raises(JournalError) as caught:
        restore(
            header,
            content[: header.data_offset],
            forged_record,
            lambda offset, size: content[offset : offset + size],
        )
    assert caught.value.code == "history_mismatch"


def test_a_factor_tensor_of_another_type_is_refused_with_its_name(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    for tensor, code in (
        (Tensor(ROPE_FREQS, (16,), "F16"), "tensor_type"),
        (Tensor(ROPE_FREQS, (4, 4), "F32"), "tensor_shape"),
        (Tensor(ROPE_FREQS, (16,), "F32"), "nonsense_value"),
    ):
        path.write_bytes(gguf_bytes(SMALLEST_LLAMA, (*SMALLEST_TENSORS, tensor))[:-64] + bytes(64))
        with pytest.raises(GgufextError) as caught:
            facts_of(path)
        assert caught.value.code == code
        assert caught.value.field == ROPE_FREQS


def test_a_recipe_of_another_model_needs_force(llama: Path) -> None:
    foreign = decode_recipe(
        json.dumps({"plan": {"method": "ntk"}, "model": {"facts_hash": "sha256:0"}})
    )
    with pytest.raises(GgufextError) as caught:
        rewrite(llama, PlanRequest(target_length=8192, method=Method.NTK, recipe=foreign))
    assert caught.value.code == "other_model"
    rewrite(llama, PlanRequest(target_length=8192, method=Method.NTK, recipe=foreign, force=True))
