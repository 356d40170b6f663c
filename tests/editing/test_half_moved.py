"""Recovery of files in which only a part has moved, as a power failure leaves them.

A half-done insert is an unmoved file with a range inserted at some place; a half-done collapse is
a moved one with a range inserted there. Both are made here with the calls themselves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from editing.disk import PowerFailure
from ggufext.editing.recovery import State
from ggufext.editing.rewrite import recover, rewrite, undo
from ggufext.errors import JournalError
from ggufext.header.header import POISONED_MAGIC
from ggufext.opened import journal as journals
from ggufext.opened.files import FileSystem
from ggufext.planning.methods import Method
from ggufext.planning.request import PlanRequest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class StopsBeforeMoving(FileSystem):
    """Ends the process in place of moving a model's data; the probe's small file may move."""

    def insert_range(self, descriptor: int, offset: int, length: int) -> None:
        self._move(super().insert_range, descriptor, offset, length)

    def collapse_range(self, descriptor: int, offset: int, length: int) -> None:
        self._move(super().collapse_range, descriptor, offset, length)

    def _move(
        self, move: Callable[[int, int, int], None], descriptor: int, offset: int, length: int
    ) -> None:
        if self.read(descriptor, 0, 4) == POISONED_MAGIC:
            raise PowerFailure
        move(descriptor, offset, length)


@pytest.fixture(params=[Method.GAMMA, Method.LLAMA3], ids=["keys only", "with a tensor"])
def method(request: pytest.FixtureRequest) -> Method:
    """What the interrupted edit writes: keys, or keys and a tensor behind the data."""
    chosen = request.param
    assert isinstance(chosen, Method)
    return chosen


def before_insert(path: Path, method: Method = Method.GAMMA) -> bytes:
    """Bring a file to the moment before its data moves up; its original bytes."""
    original = path.read_bytes()
    with pytest.raises(PowerFailure):
        rewrite(path, PlanRequest(target_length=8192, method=method), files=StopsBeforeMoving())
    return original


def before_collapse(path: Path, method: Method) -> tuple[bytes, bytes]:
    """Bring a file to the moment before its data moves down; original and edited bytes."""
    original = path.read_bytes()
    rewrite(path, PlanRequest(target_length=8192, method=method))
    edited = path.read_bytes()
    with pytest.raises(PowerFailure):
        undo(path, files=StopsBeforeMoving())
    return original, edited


def growth(path: Path) -> int:
    journal = journals.read(FileSystem(), path)
    assert journal is not None
    return abs(journal.patch.growth)


def places(path: Path, block: int) -> range:
    return range(block, path.stat().st_size // block * block, 7 * block)


def test_an_insert_that_stopped_at_any_block_is_taken_back(
    llama: Path, inserting: int, method: Method
) -> None:
    original = before_insert(llama, method)
    for place in places(llama, inserting):
        llama_bytes = before_insert(llama, method) if place > inserting else original
        assert llama_bytes == original
        length = growth(llama)
        with llama.open("r+b") as file:
            FileSystem().insert_range(file.fileno(), place, length)
        assert recover(llama).state is State.RESTORED
        assert llama.read_bytes() == original


def test_an_insert_that_moved_everything_is_finished(
    llama: Path, inserting: int, method: Method
) -> None:
    before_insert(llama, method)
    with llama.open("r+b") as file:
        FileSystem().insert_range(file.fileno(), 0, growth(llama))
    assert recover(llama).state is State.FINISHED
    undo(llama)


@pytest.mark.parametrize("shown", ["whole growth", "rounded up to a block"])
def test_an_insert_that_only_grew_the_file_is_taken_back(
    llama: Path, inserting: int, method: Method, shown: str
) -> None:
    original = before_insert(llama, method)
    before = llama.stat().st_size
    size = before + growth(llama)
    if shown == "rounded up to a block":
        # Seen on xfs after a power cut.
        size = -(-before // inserting) * inserting
    with llama.open("r+b") as file:
        file.truncate(size)
    assert recover(llama).state is State.RESTORED
    assert llama.read_bytes() == original


def test_a_collapse_that_stopped_at_any_block_is_completed(
    llama: Path, inserting: int, method: Method
) -> None:
    original, _ = before_collapse(llama, method)
    for place in places(llama, inserting):
        if place > inserting:
            before_collapse(llama, method)
        length = growth(llama)
        with llama.open("r+b") as file:
            FileSystem().collapse_range(file.fileno(), 0, length)
            FileSystem().insert_range(file.fileno(), place, length)
        assert recover(llama).state is State.RESTORED
        assert llama.read_bytes() == original


def test_a_collapse_that_did_not_shrink_the_file_yet_is_completed(
    llama: Path, inserting: int, method: Method
) -> None:
    original, edited = before_collapse(llama, method)
    with llama.open("r+b") as file:
        FileSystem().collapse_range(file.fileno(), 0, growth(llama))
        file.truncate(len(edited))
    assert recover(llama).state is State.RESTORED
    assert llama.read_bytes() == original


def test_a_collapse_that_only_emptied_its_range_is_completed(
    llama: Path, inserting: int, method: Method
) -> None:
    original, _ = before_collapse(llama, method)
    length = growth(llama)
    with llama.open("r+b") as file:
        FileSystem().collapse_range(file.fileno(), 0, length)
        FileSystem().insert_range(file.fileno(), 0, length)
    assert recover(llama).state is State.RESTORED
    assert llama.read_bytes() == original


def test_a_collapse_that_moved_nothing_leaves_the_edited_file(
    llama: Path, inserting: int, method: Method
) -> None:
    _, edited = before_collapse(llama, method)
    assert recover(llama).state is State.UNTOUCHED
    assert llama.read_bytes() == edited


@pytest.mark.parametrize("damage", ["size", "data", "two holes"])
def test_a_file_that_something_else_changed_is_left_alone(
    llama: Path, inserting: int, damage: str
) -> None:
    original = before_insert(llama)
    length = growth(llama)
    with llama.open("r+b") as file:
        if damage == "size":
            file.truncate(len(original) - inserting)
        elif damage == "data":
            file.seek(len(original) // inserting * inserting - inserting)
            file.write(b"something else")
        else:
            FileSystem().insert_range(file.fileno(), 20 * inserting, length)
            file.seek(0)
            FileSystem().insert_range(file.fileno(), 40 * inserting, length)
            file.truncate(len(original) + length)
    found = llama.read_bytes()
    with pytest.raises(JournalError) as caught:
        recover(llama)
    assert caught.value.code == "unclear_state"
    assert llama.read_bytes() == found
    assert journals.path_for(llama).exists()


def test_a_journal_of_another_file_is_refused(llama: Path, inserting: int) -> None:
    before_insert(llama)
    content = llama.read_bytes()
    other = llama.with_name("other.gguf")
    other.write_bytes(content)
    llama.unlink()
    other.rename(llama)
    with pytest.raises(JournalError) as caught:
        recover(llama)
    assert caught.value.code == "damaged_journal"
    assert llama.read_bytes() == content


@pytest.mark.parametrize("cut", [0, 1, 100, -1])
def test_a_damaged_journal_is_refused(llama: Path, inserting: int, cut: int) -> None:
    before_insert(llama)
    content = llama.read_bytes()
    journal = journals.path_for(llama)
    journal.write_bytes(journal.read_bytes()[:cut])
    with pytest.raises(JournalError) as caught:
        recover(llama)
    assert caught.value.code == "damaged_journal"
    assert llama.read_bytes() == content
