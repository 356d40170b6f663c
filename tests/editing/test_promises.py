"""Every undo that is promised gives the bytes back that it promises, whatever came before."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import random
import struct
import zlib
from typing import TYPE_CHECKING, Any

import pytest

from gguf_bytes import (
    F32,
    SMALLEST_LLAMA,
    SMALLEST_TENSORS,
    U32,
    Raw,
    Tensor,
    gguf_bytes,
)
from ggufext.editing.rewrite import rewrite, undo
from ggufext.errors import GgufextError
from ggufext.header.frequencies import inverse_frequencies, llama3_factors
from ggufext.header.header import read_header
from ggufext.opened import history, restoration, strategies
from ggufext.opened.inspection import inspect
from ggufext.opened.patch import GAP_KEY, HISTORY_KEY, PADDING_KEY
from ggufext.opened.strategies import Strategy
from ggufext.planning.methods import Method
from ggufext.planning.request import PlanRequest
from rewriting import rewrite_with

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

METADATA: dict[str, object] = {**SMALLEST_LLAMA, "general.name": "before"}
#: With these an edit can stay within the values that are there.
PRESENT: dict[str, object] = {
    "llama.rope.freq_base": F32(10000.0),
    "llama.rope.scaling.type": "none",
    "llama.rope.scaling.original_context_length": U32(2048),
}
VOCABULARY: dict[str, object] = {
    "tokenizer.ggml.tokens": [f"token {i}" for i in range(2000)],
    "tokenizer.ggml.bos_token_id": U32(1),
}
NATIVE = llama3_factors(inverse_frequencies(10_000.0, 32), 4.0, 512)
FACTORS = Tensor("rope_freqs.weight", (16,), "F32", data=struct.pack("<16f", *NATIVE))

#: What files carry before their first edit here.
STRANGE: dict[str, dict[str, object]] = {
    "plain": {},
    "our filler only": {PADDING_KEY: " " * 5000},
    "a filler that is none": {PADDING_KEY: "x" * 100},
    "a foreign history": {HISTORY_KEY: "x"},
    "an empty history": {HISTORY_KEY: ""},
    "a history that is no text": {HISTORY_KEY: U32(7)},
    "a gap": {GAP_KEY: " " * 60},
    "all": {HISTORY_KEY: "{}", PADDING_KEY: "", GAP_KEY: U32(7)},
}


def write_model(
    path: Path, strange: dict[str, object], *, late: bool = False, factors: bool = False, **how: Any
) -> Path:
    """A model with keys of ours among its own, or behind its vocabulary."""
    keys = (METADATA | VOCABULARY | strange) if late else (METADATA | strange | VOCABULARY)
    content = gguf_bytes(keys, (*SMALLEST_TENSORS, *([FACTORS] if factors else [])), **how)
    path.write_bytes(content)
    return path


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("late", [False, True], ids=["in the front", "behind the vocabulary"])
@pytest.mark.parametrize("strange", STRANGE.values(), ids=STRANGE)
@pytest.mark.parametrize("method", [Method.GAMMA, Method.LLAMA3], ids=lambda m: m.value)
def test_a_file_with_keys_of_ours_is_undone_to_the_byte(
    tmp_path: Path, strange: dict[str, object], late: bool, method: Method
) -> None:
    path = write_model(tmp_path / "m.gguf", strange, late=late)
    original = path.read_bytes()
    assert rewrite(path, PlanRequest(target_length=4096, method=method)).receipt.undo is not None
    assert (
        rewrite(path, PlanRequest(target_length=8192, method=Method.YARN)).receipt.undo is not None
    )
    undo(path)
    assert path.read_bytes() == original


def test_an_edit_without_history_is_where_the_next_undo_leads(llama: Path) -> None:
    assert rewrite(llama, PlanRequest(target_length=4096), keep_history=False).receipt.undo is None
    between = llama.read_bytes()
    again = rewrite(llama, PlanRequest(target_length=8192, train_length=2048, train_freq_base=1e4))
    assert again.receipt.undo is not None
    undo(llama)
    assert llama.read_bytes() == between
    with pytest.raises(GgufextError) as caught:
        undo(llama)
    assert caught.value.code == "nothing_to_undo"


def test_an_edit_without_history_leaves_no_record_of_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for grows in (True, False):
        if not grows:
            monkeypatch.setattr(strategies, "insert_block", lambda *_: None)
        path = write_model(tmp_path / f"{grows}.gguf", PRESENT)
        rewrite(path, PlanRequest(target_length=4096))
        rewrite(path, PlanRequest(target_length=8192), keep_history=False)
        assert HISTORY_KEY not in read_header(path).keys
        assert not history.sidecar(path).exists()
        with pytest.raises(GgufextError) as caught:
            undo(path)
        assert caught.value.code == "nothing_to_undo"


def test_a_record_moves_from_the_file_to_beside_it_and_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_model(tmp_path / "m.gguf", PRESENT | {HISTORY_KEY: "x"})
    original = path.read_bytes()
    with monkeypatch.context() as nothing_grows:
        nothing_grows.setattr(strategies, "insert_block", lambda *_: None)
        assert rewrite(path, PlanRequest(target_length=4096)).receipt.strategy is Strategy.OVERWRITE
    assert HISTORY_KEY not in read_header(path).keys
    assert history.sidecar(path).exists()
    rewrite(path, PlanRequest(target_length=8192, method=Method.YARN), strategy=Strategy.COPY)
    assert HISTORY_KEY in read_header(path).keys
    assert list(tmp_path.iterdir()) == [path]
    undo(path)
    assert path.read_bytes() == original


@pytest.mark.parametrize("foreign", ["x", "{}", "old"])
def test_of_two_records_the_one_that_fits_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, foreign: str
) -> None:
    path = write_model(tmp_path / "m.gguf", PRESENT)
    rewrite(path, PlanRequest(target_length=8192))
    old = str(read_header(path).value(HISTORY_KEY)) if foreign == "old" else foreign
    write_model(path, PRESENT | {HISTORY_KEY: old})
    original = path.read_bytes()
    with monkeypatch.context() as nothing_grows:
        nothing_grows.setattr(strategies, "insert_block", lambda *_: None)
        rewrite(path, PlanRequest(target_length=4096))
    beside = history.sidecar(path).read_text()
    # As if the one in the file had stayed there.
    edited = {"llama.rope.freq_base": F32(20000.0), "llama.context_length": U32(4096)}
    write_model(path, PRESENT | edited | {HISTORY_KEY: old})
    undo(path)
    assert path.read_bytes() == original
    # And as if the one beside it had stayed when a later edit wrote its own.
    rewrite(path, PlanRequest(target_length=8192))
    history.sidecar(path).write_text(beside)
    undo(path)
    assert path.read_bytes() == original


def test_a_record_that_stayed_beside_a_new_download_says_nothing_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(strategies, "insert_block", lambda *_: None)
    path = write_model(tmp_path / "m.gguf", PRESENT)
    original = path.read_bytes()
    rewrite(path, PlanRequest(target_length=4096))
    path.write_bytes(original)
    found = inspect(path)
    assert found.history is None
    assert [warning.code for warning in found.warnings] == ["history_mismatch"]
    with pytest.raises(GgufextError) as caught:
        undo(path)
    assert caught.value.code == "history_mismatch"
    assert rewrite(path, PlanRequest(target_length=8192)).receipt.undo is not None
    undo(path)
    assert path.read_bytes() == original


@pytest.mark.parametrize(
    "wrong",
    [
        lambda record: {"layout": record.layout[1:]},
        lambda record: {"size": record.size + 32},
        lambda record: {"header_sha256": "0" * 64},
        lambda record: {"edited_sha256": "0" * 64},
        lambda record: {"tensors_sha256": "0" * 64},
        lambda record: {"end": record.end + b"x"},
    ],
    ids=["layout", "size", "header", "edited", "tensors", "end"],
)
def test_an_undo_that_would_not_lead_back_is_never_promised(
    llama: Path,
    wrong: Callable[[history.History], dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    true_record = restoration.record_of

    def wrong_record(*args: Any, **how: Any) -> history.History:
        record = true_record(*args, **how)
        return dataclasses.replace(record, **wrong(record))

    monkeypatch.setattr(restoration, "record_of", wrong_record)
    content = llama.read_bytes()
    for how in ({}, {"dry_run": True}, {"output": llama.with_name("new.gguf")}):
        with pytest.raises(GgufextError) as caught:
            rewrite_with(llama, how, target_length=8192)
        assert caught.value.code == "history_mismatch"
        assert llama.read_bytes() == content
        assert list(llama.parent.iterdir()) == [llama]


@pytest.mark.parametrize("change", ["format", "no format"])
def test_a_record_of_another_format_is_named(llama: Path, change: str) -> None:
    rewrite(llama, PlanRequest(target_length=8192))
    record = json.loads(str(read_header(llama).value(HISTORY_KEY)))
    if change == "format":
        record["format"] = 99
    else:
        del record["format"]
    with pytest.raises(GgufextError, match=r"in format (1|99) by ggufext") as caught:
        history.decode(json.dumps(record))
    assert caught.value.code == "history_mismatch"


def test_a_record_that_unpacks_to_more_than_its_bound_is_refused(llama: Path) -> None:
    rewrite(llama, PlanRequest(target_length=8192))
    record = json.loads(str(read_header(llama).value(HISTORY_KEY)))
    huge = zlib.compress(bytes(history.LARGEST_RECORD + 1), 9)
    record["original"] = {"llama.context_length": base64.b64encode(huge).decode()}
    with pytest.raises(GgufextError) as caught:
        history.decode(json.dumps(record))
    assert caught.value.code == "history_mismatch"


def test_an_undo_that_would_leave_other_factors_is_refused(tmp_path: Path) -> None:
    path = write_model(tmp_path / "m.gguf", {}, factors=True)
    rewrite(path, PlanRequest(target_length=8192, method=Method.GAMMA))
    with path.open("r+b") as file:
        file.seek(-4, 2)
        file.write(b"\0\0\x80?")
    content = path.read_bytes()
    with pytest.raises(GgufextError) as caught:
        undo(path)
    assert caught.value.code == "history_mismatch"
    assert path.read_bytes() == content


def test_a_record_with_other_tensor_bytes_is_refused(tmp_path: Path) -> None:
    path = write_model(tmp_path / "m.gguf", {}, factors=True)
    rewrite(path, PlanRequest(target_length=8192, method=Method.LLAMA3))
    record = history.in_file(read_header(path))
    assert record is not None
    ((name, factors),) = record.tensors
    assert factors is not None
    damaged = dataclasses.replace(record, tensors=((name, factors[:-4] + b"\0\0\x80?"),))
    content = path.read_bytes()
    header = read_header(path)
    with pytest.raises(GgufextError) as caught:
        restoration.restore(
            header, content[: header.data_offset], damaged,
            lambda offset, size: content[offset : offset + size],
        )  # fmt: skip
    assert caught.value.code == "history_mismatch"


class Walk:
    """Random edits of one file by this program and by others, and what each undo promises."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.random = random.Random(seed)
        self.path = folder / "m.gguf"
        self.steps: list[str] = []
        write_model(
            self.path,
            self.random.choice(list(STRANGE.values())) | self.random.choice([{}, PRESENT]),
            late=self.random.random() < 0.3,
            factors=self.random.random() < 0.4,
            alignment=self.random.choice([8, 32, 64]),
        )
        self.promised: str | None = None

    def step(self) -> None:
        name = self.random.choice(
            ["rewrite"] * 6 + ["output", "undo"] * 2 + ["no history", "another tool", "foreign key"]
        )
        self.steps.append(name)
        getattr(self, name.replace(" ", "_"))()

    def rewrite(self, **how: Any) -> None:
        before, fitted = sha256(self.path), self.fits()
        request: dict[str, Any] = {
            "target_length": 2 ** self.random.randint(12, 17),
            "method": self.random.choice([Method.GAMMA, Method.NTK, Method.YARN, Method.LLAMA3]),
            "keep_short": self.random.random() < 0.2,
            "strategy": self.random.choice([None, None, Strategy.COPY]),
        } | how
        self.steps.append(str(request))
        try:
            receipt = rewrite_with(self.path, request).receipt
        except GgufextError as error:
            self.refused(error, before)
            return
        # A record leads back through all edits that it knows of, else to the file before it.
        promised = self.promised if fitted else before
        if receipt.output != self.path:
            if receipt.undo is not None:
                undo(receipt.output)
                assert sha256(receipt.output) == promised
        elif receipt.strategy is not None:
            self.promised = promised if receipt.undo is not None else None

    def refused(self, error: GgufextError, before: str) -> None:
        assert error.code not in {"history_mismatch", "interrupted_edit", "not_verified"}
        assert sha256(self.path) == before

    def fits(self) -> bool:
        return inspect(self.path).history is not None

    def output(self) -> None:
        target = self.path.with_name("new.gguf")
        self.rewrite(output=target, force=True, keep_history=self.random.random() < 0.7)
        target.unlink(missing_ok=True)

    def no_history(self) -> None:
        self.rewrite(keep_history=False)

    def undo(self) -> None:
        if self.promised is None:
            with pytest.raises(GgufextError):
                undo(self.path)
            return
        undo(self.path, check=True)
        undo(self.path)
        assert sha256(self.path) == self.promised
        self.promised = None

    def another_tool(self) -> None:
        """Rebuilds the file with another name, as gguf-new-metadata does."""
        self.rebuild({"general.name": f"name {self.random.random()}"})

    def foreign_key(self) -> None:
        """Writes keys of ours into the file."""
        self.rebuild(self.random.choice(list(STRANGE.values())))

    def rebuild(self, changed: dict[str, object]) -> None:
        before, fitted = self.path.read_bytes(), self.fits()
        header = read_header(self.path)
        keys: dict[str, object] = {
            key: Raw(entry.type, before[entry.start + 12 + len(key) : entry.end])
            for key, entry in header.keys.items()
            if key != "general.alignment"
        }
        tensors = [
            Tensor(t.name, t.shape, t.type, data=before[header.data_offset + t.offset :][: t.size])
            for t in header.tensors
        ]
        self.path.write_bytes(gguf_bytes(keys | changed, tensors, alignment=header.alignment))
        if not (fitted and self.fits()):
            self.promised = None


@pytest.mark.parametrize("grows", [True, False], ids=["can grow", "cannot grow"])
@pytest.mark.parametrize("seed", range(20))
def test_whatever_happens_to_a_file_a_promised_undo_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, grows: bool
) -> None:
    if not grows:
        monkeypatch.setattr(strategies, "insert_block", lambda *_: None)
    walk = Walk(tmp_path, seed)
    for _ in range(15):
        walk.step()
    walk.undo()


@pytest.mark.parametrize(
    "forge",
    [
        lambda record: record | {"layout": record["layout"][1:]},
        lambda record: record | {"layout": record["layout"] * 2},
        lambda record: record | {"layout": ["llama.context_length"] * 1_000_000},
        lambda record: record | {"layout": [[0, 2**62]]},
        lambda record: record | {"layout": [[10, 10], [0, 10]]},
        lambda record: record | {"layout": [[0]]},
        lambda record: record | {"layout": [["a", "b"]]},
        lambda record: record | {"layout": ["no such key"]},
        lambda record: record | {"layout": ["llama.rope.freq_base"]},
        lambda record: record | {"start": record["end"]},
        lambda record: record | {"size": record["size"] + 32},
        lambda record: record | {"data_offset": 2**62},
        lambda record: record | {"edited_sha256": "0" * 64},
        lambda record: record | {"tensors_sha256": "0" * 64},
        lambda record: record | {"tensors_sha256": "", "tensors": {"token_embd.weight": None}},
    ],
)
def test_a_record_that_leads_elsewhere_is_refused(
    llama: Path, forge: Callable[[dict[str, Any]], dict[str, Any]]
) -> None:
    rewrite(llama, PlanRequest(target_length=8192))
    header, content = read_header(llama), llama.read_bytes()
    forged = json.dumps(forge(json.loads(str(header.value(HISTORY_KEY)))))
    with pytest.raises(GgufextError) as caught:
        restoration.restore(
            header,
            content[: header.data_offset],
            history.decode(forged),
            lambda offset, size: content[offset : offset + size],
        )
    assert caught.value.code == "history_mismatch"
