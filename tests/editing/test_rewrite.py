"""Rewriting files for real: what is written where, and how it is taken back."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import gguf
import pytest

from gguf_bytes import F32, SMALLEST_LLAMA, SMALLEST_TENSORS, U32, gguf_bytes
from ggufext.editing.recovery import State
from ggufext.editing.rewrite import recover, rewrite, undo
from ggufext.errors import EditError, JournalError, PlanError
from ggufext.header.header import read_header
from ggufext.opened import history, strategies
from ggufext.opened.files import FileSystem
from ggufext.opened.patch import HISTORY_KEY, PADDING_KEY
from ggufext.opened.strategies import Strategy
from ggufext.planning.methods import Method
from ggufext.planning.request import PlanRequest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

WITHOUT_TENSORS = (Method.GAMMA, Method.NTK, Method.YARN, Method.LINEAR)


def model_file(path: Path, keys: dict[str, object] | None = None, **options: object) -> Path:
    """The smallest model, and more keys."""
    content = gguf_bytes({**SMALLEST_LLAMA, **(keys or {})}, SMALLEST_TENSORS, **options)  # type: ignore[arg-type]
    path.write_bytes(content)
    return path


def values(path: Path) -> dict[str, object]:
    header = read_header(path)
    return {key: header.value(key) for key in header.keys if key.startswith("llama.")}


def test_the_first_edit_inserts_and_the_next_overwrites(llama: Path, inserting: int) -> None:
    size = llama.stat().st_size
    first = rewrite(llama, PlanRequest(target_length=8192)).receipt
    assert first.strategy is Strategy.INSERT
    assert llama.stat().st_size == size + inserting
    second = rewrite(llama, PlanRequest(target_length=16384, method=Method.YARN)).receipt
    assert second.strategy is Strategy.OVERWRITE
    assert llama.stat().st_size == size + inserting


def test_an_edit_writes_no_more_than_the_front_of_the_header(llama: Path, inserting: int) -> None:
    arrays = read_header(llama).keys["tokenizer.ggml.tokens"].start
    receipt = rewrite(llama, PlanRequest(target_length=8192)).receipt
    assert receipt.bytes_written <= arrays + inserting


def test_a_second_edit_starts_from_the_original_facts(llama: Path) -> None:
    once, twice = llama.with_name("once.gguf"), llama.with_name("twice.gguf")
    shutil.copy(llama, once)
    shutil.copy(llama, twice)
    rewrite(once, PlanRequest(target_length=4096, method=Method.GAMMA))
    rewrite(twice, PlanRequest(target_length=16384, method=Method.YARN))
    made = rewrite(twice, PlanRequest(target_length=4096, method=Method.GAMMA)).plan
    assert made.train_length.value == 2048
    assert values(twice) == values(once)


def test_undo_after_several_edits_gives_the_original_bytes(llama: Path) -> None:
    original = llama.read_bytes()
    for method in (*WITHOUT_TENSORS, Method.LLAMA3, Method.GAMMA, Method.LLAMA3):
        rewrite(llama, PlanRequest(target_length=8192, method=method))
    assert undo(llama).state is State.RESTORED
    assert llama.read_bytes() == original


def test_an_edit_that_changes_nothing_writes_nothing(llama: Path) -> None:
    rewrite(llama, PlanRequest(target_length=8192))
    before = (llama.read_bytes(), llama.stat().st_mtime_ns)
    receipt = rewrite(llama, PlanRequest(target_length=8192)).receipt
    assert receipt.strategy is None
    assert (llama.read_bytes(), llama.stat().st_mtime_ns) == before


@pytest.mark.parametrize("method", WITHOUT_TENSORS, ids=lambda m: m.value)
def test_gguf_py_reads_every_result(llama: Path, method: Method) -> None:
    tensors = [bytes(t.data) for t in gguf.GGUFReader(llama).tensors]
    made = rewrite(llama, PlanRequest(target_length=8192, method=method)).plan
    reader = gguf.GGUFReader(llama)
    for edit in made.edits:
        assert reader.fields[edit.key].contents() == pytest.approx(edit.after)
    assert [bytes(t.data) for t in reader.tensors] == tensors


@pytest.mark.parametrize("alignment", [8, 32, 64, 8192, 65536])
def test_every_alignment_keeps_its_data_in_place(tmp_path: Path, alignment: int) -> None:
    path = model_file(tmp_path / "m.gguf", alignment=alignment)
    original = path.read_bytes()
    before = read_header(path)
    rewrite(path, PlanRequest(target_length=4096))
    after = read_header(path)
    assert after.data_offset % alignment == 0
    assert path.read_bytes()[after.data_offset :] == original[before.data_offset :]
    undo(path)
    assert path.read_bytes() == original


def test_keys_behind_large_arrays_are_changed_where_they_stand(tmp_path: Path) -> None:
    late = {
        "tokenizer.ggml.tokens": ["x" * 40] * 500,
        "llama.rope.freq_base": F32(10000.0),
        "llama.rope.scaling.type": "none",
    }
    path = model_file(tmp_path / "m.gguf", late)
    original = path.read_bytes()
    receipt = rewrite(path, PlanRequest(target_length=4096)).receipt
    assert values(path)["llama.rope.freq_base"] == 20000.0
    assert receipt.bytes_written < 8192
    undo(path)
    assert path.read_bytes() == original


def test_a_late_key_that_changes_its_size_moves_what_is_behind_it(tmp_path: Path) -> None:
    late = {
        "tokenizer.ggml.tokens": ["x" * 40] * 500,
        "llama.rope.scaling.type": "none",
        "tokenizer.ggml.bos_token_id": U32(1),
    }
    path = model_file(tmp_path / "m.gguf", late)
    original = path.read_bytes()
    rewrite(path, PlanRequest(target_length=4096, method=Method.LINEAR))
    assert values(path)["llama.rope.scaling.type"] == "linear"
    undo(path)
    assert path.read_bytes() == original


def test_version_2_files_are_edited_too(tmp_path: Path) -> None:
    path = model_file(tmp_path / "m.gguf", version=2)
    original = path.read_bytes()
    rewrite(path, PlanRequest(target_length=4096))
    assert read_header(path).version == 2
    undo(path)
    assert path.read_bytes() == original


def test_output_leaves_the_source_alone_and_can_be_undone(llama: Path) -> None:
    source = llama.read_bytes()
    output = llama.with_name("long.gguf")
    receipt = rewrite(llama, PlanRequest(target_length=8192), output=output).receipt
    assert (receipt.strategy, receipt.output) == (Strategy.COPY, output)
    assert llama.read_bytes() == source
    assert values(output)["llama.context_length"] == 8192
    undo(output)
    assert output.read_bytes() == source


def test_undo_to_an_output_writes_the_original_and_leaves_the_source_alone(llama: Path) -> None:
    original = llama.read_bytes()
    rewrite(llama, PlanRequest(target_length=8192))
    extended = llama.read_bytes()
    output = llama.with_name("original.gguf")
    assert undo(llama, output=output, check=True).strategy is Strategy.COPY
    assert not output.exists()
    undone = undo(llama, output=output)
    assert (undone.path, undone.size) == (output, len(original))
    assert output.read_bytes() == original
    assert llama.read_bytes() == extended
    with pytest.raises(EditError) as caught:
        undo(llama, output=output)
    assert caught.value.code == "output_exists"


def test_output_without_history_carries_no_trace(llama: Path) -> None:
    output = llama.with_name("published.gguf")
    rewrite(llama, PlanRequest(target_length=8192), output=output, keep_history=False)
    header = read_header(output)
    assert not [key for key in header.keys if key.startswith("ggufext")]
    source = read_header(llama)
    data = llama.read_bytes()[source.data_offset :]
    assert output.read_bytes()[header.data_offset :] == data
    with pytest.raises(EditError) as caught:
        undo(output)
    assert caught.value.code == "nothing_to_undo"


def test_an_existing_output_is_not_replaced_unless_forced(llama: Path) -> None:
    output = llama.with_name("long.gguf")
    output.write_bytes(b"something precious")
    with pytest.raises(EditError) as caught:
        rewrite(llama, PlanRequest(target_length=8192), output=output)
    assert caught.value.code == "output_exists"
    assert output.read_bytes() == b"something precious"
    rewrite(llama, PlanRequest(target_length=8192, force=True), output=output)
    assert values(output)["llama.context_length"] == 8192


def test_a_copy_keeps_mode_and_extended_attributes(llama: Path) -> None:
    llama.chmod(0o640)
    try:
        os.setxattr(llama, "user.origin", b"here")
    except OSError:
        pytest.skip("no extended attributes in the temporary folder")
    seen: list[int] = []
    rewrite(
        llama,
        PlanRequest(target_length=8192),
        strategy=Strategy.COPY,
        progress=lambda done, total: seen.append(done * 100 // total),
    )
    assert llama.stat().st_mode & 0o777 == 0o640
    assert os.getxattr(llama, "user.origin") == b"here"
    assert seen[-1] == 100


def test_where_the_owner_may_not_be_set_a_copy_keeps_the_group(
    llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, int]] = []

    def chown(_path: Path, owner: int, group: int) -> None:
        asked.append((owner, group))
        if owner != -1:
            raise PermissionError

    monkeypatch.setattr(os, "chown", chown)
    status = llama.stat()
    rewrite(llama, PlanRequest(target_length=8192), strategy=Strategy.COPY)
    assert asked == [(status.st_uid, status.st_gid), (-1, status.st_gid)]


def test_without_inserting_same_size_values_are_overwritten_with_a_record_beside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(strategies, "insert_block", lambda _files, _folder: None)
    present = {
        "llama.rope.freq_base": F32(10000.0),
        "llama.rope.scaling.type": "none",
        "llama.rope.scaling.original_context_length": U32(2048),
    }
    path = model_file(tmp_path / "m.gguf", present)
    original = path.read_bytes()
    assert rewrite(path, PlanRequest(target_length=4096)).receipt.strategy is Strategy.OVERWRITE
    assert path.stat().st_size == len(original)
    assert history.sidecar(path).exists()
    assert rewrite(path, PlanRequest(target_length=8192)).plan.train_length.value == 2048
    undo(path)
    assert path.read_bytes() == original
    assert list(tmp_path.iterdir()) == [path]


def test_without_inserting_new_keys_mean_a_copy(
    llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(strategies, "insert_block", lambda _files, _folder: None)
    original = llama.read_bytes()
    assert rewrite(llama, PlanRequest(target_length=8192)).receipt.strategy is Strategy.COPY
    assert rewrite(llama, PlanRequest(target_length=16384)).receipt.strategy is Strategy.OVERWRITE
    undo(llama)
    assert llama.read_bytes() == original


@pytest.mark.parametrize(
    ("wanted", "reason"), [(Strategy.OVERWRITE, "no room"), (Strategy.INSERT, "cannot insert")]
)
def test_a_strategy_that_does_not_serve_is_refused_with_the_reason(
    llama: Path, monkeypatch: pytest.MonkeyPatch, wanted: Strategy, reason: str
) -> None:
    monkeypatch.setattr(strategies, "insert_block", lambda _files, _folder: None)
    original = llama.read_bytes()
    request = PlanRequest(target_length=8192, method=Method.YARN)
    with pytest.raises(EditError, match=reason) as caught:
        rewrite(llama, request, strategy=wanted)
    assert caught.value.code == "strategy_unusable"
    assert llama.read_bytes() == original


def test_a_file_with_holes_is_copied(llama: Path, inserting: int) -> None:
    with llama.open("r+b") as file:
        file.truncate(llama.stat().st_size + 64 * inserting)
        assert FileSystem().holes(file.fileno())
    assert rewrite(llama, PlanRequest(target_length=8192)).receipt.strategy is Strategy.COPY


def test_a_dry_run_writes_nothing(llama: Path) -> None:
    original = llama.read_bytes()
    receipt = rewrite(llama, PlanRequest(target_length=8192), dry_run=True).receipt
    assert receipt.ranges[0].start == 0
    assert llama.read_bytes() == original
    assert list(llama.parent.iterdir()) == [llama]


def test_the_filler_and_the_record_are_in_the_file(llama: Path) -> None:
    rewrite(llama, PlanRequest(target_length=8192))
    header = read_header(llama)
    assert set(str(header.value(PADDING_KEY))) <= {" "}
    record = history.in_file(header)
    assert record is not None
    assert (record.method, record.target_length) == ("gamma", 8192)


def test_an_unverified_architecture_needs_force(tmp_path: Path) -> None:
    keys = {key.replace("llama", "plm"): value for key, value in SMALLEST_LLAMA.items()}
    path = tmp_path / "m.gguf"
    path.write_bytes(gguf_bytes(keys=keys | {"general.architecture": "plm"}))
    original = path.read_bytes()
    with pytest.raises(PlanError) as caught:
        rewrite(path, PlanRequest(target_length=4096))
    assert caught.value.code == "unverified_architecture"
    assert path.read_bytes() == original
    rewrite(path, PlanRequest(target_length=4096, force=True))
    assert read_header(path).value("plm.context_length") == 4096


def test_recover_on_a_complete_file_does_nothing(llama: Path) -> None:
    original = llama.read_bytes()
    assert recover(llama).state is State.UNTOUCHED
    assert llama.read_bytes() == original


def test_a_copy_by_another_tool_cannot_be_undone(llama: Path) -> None:
    rewrite(llama, PlanRequest(target_length=8192))
    header = read_header(llama)
    other = llama.with_name("other.gguf")
    keys = {key: header.value(key) for key in header.keys if not key.startswith("tokenizer")}
    typed = {key: U32(v) if isinstance(v, int) else v for key, v in keys.items()}
    other.write_bytes(gguf_bytes(keys=typed))
    assert HISTORY_KEY in read_header(other).keys
    content = other.read_bytes()
    with pytest.raises(JournalError) as caught:
        undo(other)
    assert caught.value.code == "history_mismatch"
    assert other.read_bytes() == content


@pytest.mark.parametrize(
    "forge",
    [
        lambda text: "{}",
        lambda text: "not json",
        lambda text: "[" * 100_000,
        lambda text: text.replace('"size":', '"size":-'),
        lambda text: text.replace("llama.context_length", "general.architecture"),
        lambda text: text.replace('"header_sha256":"', '"header_sha256":"0'),
        lambda text: text.replace('"infos_sha256":"', '"infos_sha256":"0'),
    ],
)
def test_a_forged_record_is_refused(tmp_path: Path, forge: Callable[[str], str]) -> None:
    path = model_file(tmp_path / "m.gguf")
    rewrite(path, PlanRequest(target_length=4096))
    text = str(read_header(path).value(HISTORY_KEY))
    keys = {"llama.context_length": U32(4096), HISTORY_KEY: forge(text)}
    model_file(path, keys)
    content = path.read_bytes()
    with pytest.raises(JournalError) as caught:
        undo(path)
    assert caught.value.code == "history_mismatch"
    assert path.read_bytes() == content
