"""What lies beside a model or takes its place: whose it is, and whether it belongs there."""

from __future__ import annotations

import dataclasses
import errno
import os
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from editing.test_half_moved import before_insert
from gguf_bytes import U32, gguf_bytes
from ggufext.editing.application import COPY_SUFFIX
from ggufext.editing.recovery import State
from ggufext.editing.rewrite import recover, rewrite, undo
from ggufext.errors import EditError, GgufextError, JournalError
from ggufext.header.header import JOURNAL_SUFFIX, read_header
from ggufext.opened import history, strategies
from ggufext.opened import journal as journals
from ggufext.opened.files import FileSystem
from ggufext.opened.inspection import inspect
from ggufext.opened.strategies import Strategy
from ggufext.planning.request import PlanRequest
from rewriting import rewrite_with
from split_model import split_model

if TYPE_CHECKING:
    from pathlib import Path

SOMEBODY = 12345


def refusal(path: Path, **options: Any) -> GgufextError:
    with pytest.raises(GgufextError) as caught:
        rewrite_with(path, options, target_length=8192)
    return caught.value


def drafts(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if COPY_SUFFIX in path.name]


def test_each_copy_is_written_under_a_name_of_its_own(llama: Path) -> None:
    seen: set[Path] = set()
    for _ in range(2):
        rewrite(
            llama,
            PlanRequest(target_length=8192, force=True),
            output=llama.with_name("new.gguf"),
            progress=lambda *_: seen.update(drafts(llama.parent)),
        )
    assert len(seen) == 2
    assert not drafts(llama.parent)


class Forbids(FileSystem):
    """As in a folder where nobody may remove what belongs to others."""

    def remove(self, path: Path) -> None:
        raise PermissionError(errno.EPERM, "not yours")


def test_abandoned_copies_are_removed_and_those_of_others_left_alone(llama: Path) -> None:
    abandoned = llama.with_name(llama.name + COPY_SUFFIX + "0a1b2c")
    abandoned.write_bytes(b"half")
    busy = llama.with_name(llama.name + COPY_SUFFIX + "0a1b2d")
    link = llama.with_name(llama.name + COPY_SUFFIX + "0a1b2e")
    link.symlink_to(llama)
    with busy.open("wb") as other:
        assert FileSystem().lock(other.fileno())
        rewrite(llama, PlanRequest(target_length=8192), strategy=Strategy.COPY, files=Forbids())
        assert abandoned.exists()
        recover(llama)
        assert busy.exists()
    assert not abandoned.exists()
    assert link.is_symlink()
    undo(llama, output=llama.with_name("original.gguf"))


@pytest.mark.parametrize("force", [False, True])
def test_a_file_that_takes_the_name_of_the_output_meanwhile_is_replaced_only_by_force(
    llama: Path, force: bool
) -> None:
    output = llama.with_name("new.gguf")

    def appears(done: int, total: int) -> None:
        if done == total:
            output.write_bytes(b"somebody's work")

    if force:
        rewrite(llama, PlanRequest(target_length=8192, force=True), output=output, progress=appears)
        assert read_header(output).value("llama.context_length") == 8192
    else:
        assert refusal(llama, output=output, progress=appears).code == "output_exists"
        assert output.read_bytes() == b"somebody's work"
    assert not drafts(llama.parent)


def test_a_part_that_appears_meanwhile_is_neither_replaced_nor_removed(llama: Path) -> None:
    parts = split_model(llama, llama.with_name("split"), parts=3)
    output = parts[0].with_name("long-00001-of-00003.gguf")
    appeared = output.with_name("long-00003-of-00003.gguf")

    def appears(_done: int, _total: int) -> None:
        appeared.write_bytes(b"somebody's work")

    before = sorted(parts[0].parent.iterdir())
    assert refusal(parts[0], output=output, progress=appears).code == "output_exists"
    assert appeared.read_bytes() == b"somebody's work"
    assert sorted(parts[0].parent.iterdir()) == sorted([*before, appeared])


def test_an_output_that_is_a_link_to_nothing_is_not_replaced(llama: Path) -> None:
    output = llama.with_name("new.gguf")
    output.symlink_to("nowhere")
    assert refusal(llama, output=output).code == "output_exists"
    assert output.is_symlink()


@pytest.mark.parametrize("output", [None, "new.gguf"])
def test_a_copy_that_somebody_exchanged_is_not_put_in_place(
    llama: Path, output: str | None
) -> None:
    content = llama.read_bytes()

    def exchanges(done: int, total: int) -> None:
        if done == total:
            (draft,) = drafts(llama.parent)
            draft.unlink()
            draft.write_bytes(b"GGUF, but another one")

    target = llama.with_name(output) if output else None
    error = refusal(llama, output=target, strategy=Strategy.COPY, progress=exchanges)
    assert error.code == "changed_meanwhile"
    assert llama.read_bytes() == content
    assert target is None or not target.exists()


class Orders(FileSystem):
    """Remembers in what order some operations came."""

    def __init__(self) -> None:
        self.order: list[str] = []

    def sync(self, descriptor: int) -> None:
        self.order.append("sync")
        super().sync(descriptor)

    def keep_attributes(self, source: Path, target: Path) -> None:
        self.order.append("attributes")
        super().keep_attributes(source, target)

    def lock(self, descriptor: int) -> bool:
        self.order.append("lock")
        return super().lock(descriptor)

    def open_for_reading(self, path: Path) -> int:
        self.order.append(path.suffix)
        return super().open_for_reading(path)


def test_a_copy_has_its_attributes_before_it_is_synchronized(llama: Path) -> None:
    disk = Orders()
    rewrite(llama, PlanRequest(target_length=8192), strategy=Strategy.COPY, files=disk)
    assert disk.order.index("attributes") < disk.order.index("sync")


def test_recover_reads_the_journal_under_the_lock(llama: Path, inserting: int) -> None:
    before_insert(llama)
    disk = Orders()
    recover(llama, files=disk)
    assert disk.order.index("lock") < disk.order.index(JOURNAL_SUFFIX)


def test_a_journal_that_another_run_removed_meanwhile_leaves_nothing_to_do(
    llama: Path, inserting: int
) -> None:
    before_insert(llama)

    class Recovered(FileSystem):
        def lock(self, descriptor: int) -> bool:
            assert recover(llama, force=True).state is State.RESTORED
            return super().lock(descriptor)

    assert recover(llama, files=Recovered()).state is State.UNTOUCHED


def test_a_journal_that_was_left_by_another_file_is_no_interrupted_edit(
    llama: Path, inserting: int
) -> None:
    source = llama.with_name("source.gguf")
    shutil.copy(llama, source)
    before_insert(llama)
    journal = journals.read(FileSystem(), llama)
    assert journal is not None
    llama.unlink()
    rewrite(source, PlanRequest(target_length=16384), output=llama)
    assert not journals.path_for(llama).exists()
    edited = llama.read_bytes()
    # Left again, also by a file that had the same number.
    for inode in (journal.inode, llama.stat().st_ino):
        stale = dataclasses.replace(journal, inode=inode)
        journals.path_for(llama).write_bytes(stale.encode())
        assert inspect(llama).history is not None
        with pytest.raises(JournalError) as caught:
            recover(llama)
        assert caught.value.code == "damaged_journal"
        assert llama.read_bytes() == edited
    undo(llama)
    assert llama.read_bytes() == source.read_bytes()
    assert not journals.path_for(llama).exists()


@pytest.fixture
def shared(llama: Path) -> Path:
    """A folder that others may write to, with a model in it."""
    if os.geteuid() != 0:
        pytest.skip("needs root to give files another owner")
    llama.parent.chmod(0o1777)
    return llama


def test_a_journal_of_another_owner_is_not_trusted_in_a_shared_folder(
    shared: Path, inserting: int
) -> None:
    original = before_insert(shared)
    poisoned = shared.read_bytes()
    journal = journals.path_for(shared)
    os.chown(journal, SOMEBODY, -1)
    with pytest.raises(JournalError, match="user 12345") as caught:
        recover(shared)
    assert (caught.value.code, caught.value.path) == ("foreign_owner", journal)
    assert shared.read_bytes() == poisoned
    shared.parent.chmod(0o755)
    recover(shared)
    assert shared.read_bytes() == original


def test_whoever_owns_the_model_owns_its_journal_too(shared: Path, inserting: int) -> None:
    original = before_insert(shared)
    for path in (shared, journals.path_for(shared)):
        os.chown(path, SOMEBODY, -1)
    recover(shared)
    assert shared.read_bytes() == original


def test_a_record_of_another_owner_is_not_trusted_in_a_shared_folder(
    shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(strategies, "insert_block", lambda *_: None)
    rewrite(shared, PlanRequest(target_length=8192), strategy=Strategy.COPY, keep_history=False)
    before = shared.read_bytes()
    again = rewrite(shared, PlanRequest(target_length=2**15, train_freq_base=1e4))
    assert again.receipt.strategy is Strategy.OVERWRITE
    record = history.sidecar(shared)
    record.write_text(str(read_header(shared).value("ggufext.history")))
    os.chown(record, SOMEBODY, -1)
    with pytest.raises(JournalError, match="user 12345") as caught:
        FileSystem().read_beside(record, shared, history.LARGEST_RECORD)
    assert caught.value.code == "foreign_owner"
    # The one in the file counts.
    undo(shared)
    assert shared.read_bytes() == before


class CutsOff(FileSystem):
    """Something cuts the file off when its header was read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self, descriptor: int, offset: int, size: int) -> bytes:
        os.truncate(self.path, 100)
        return super().read(descriptor, offset, size)


def test_data_that_would_start_behind_the_end_is_named(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(gguf_bytes({"general.architecture": "llama", "x": U32(1), "y": "z" * 400}))
    with pytest.raises(GgufextError) as caught:
        inspect(path, files=CutsOff(path))
    assert caught.value.code == "truncated"


@pytest.mark.parametrize("forged", ["beyond the file", "as large as the file", "negative"])
def test_a_journal_with_fingerprints_where_none_can_be_is_refused(
    llama: Path, inserting: int, forged: str
) -> None:
    before_insert(llama)
    poisoned = llama.read_bytes()
    journal = journals.read(FileSystem(), llama)
    assert journal is not None
    first = journal.fingerprints[0]
    wrong = {
        "beyond the file": dataclasses.replace(first, offset=2**40),
        "as large as the file": dataclasses.replace(first, size=len(poisoned) - first.offset),
        "negative": dataclasses.replace(first, offset=-inserting),
    }[forged]
    damaged = dataclasses.replace(journal, fingerprints=(wrong,))
    journals.path_for(llama).write_bytes(damaged.encode())
    with pytest.raises(EditError) as caught:
        recover(llama)
    assert caught.value.code == "damaged_journal"
    assert llama.read_bytes() == poisoned


def test_a_record_of_another_owner_that_cannot_be_removed_does_not_undo_a_copy(
    shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = shared.read_bytes()
    record = history.sidecar(shared)
    record.write_text("{}")

    def remove(_files: FileSystem, path: Path) -> None:
        raise PermissionError(1, "Operation not permitted", str(path))

    monkeypatch.setattr(FileSystem, "remove", remove)
    assert (
        rewrite(shared, PlanRequest(target_length=8192), strategy=Strategy.COPY).receipt.undo
        is not None
    )
    monkeypatch.undo()
    undo(shared)
    assert shared.read_bytes() == original
