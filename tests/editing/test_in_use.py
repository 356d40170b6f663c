"""A model that another program has open: its bytes stay under that program, whatever is forced."""

from __future__ import annotations

import errno
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from editing.disk import PowerFailure, StoppingDisk
from editing.test_half_moved import StopsBeforeMoving
from ggufext.editing.recovery import State
from ggufext.editing.rewrite import recover, rewrite, undo
from ggufext.errors import EditError
from ggufext.header.header import MAGIC
from ggufext.opened import journal as journals
from ggufext.opened.files import FileSystem
from ggufext.opened.strategies import Strategy
from ggufext.planning.request import PlanRequest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: Maps a file as llama.cpp does, and says whether its bytes are the same when it is asked.
READER = """
import hashlib, mmap, sys
with open(sys.argv[1], "rb") as file:
    mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
before = hashlib.sha256(mapped).hexdigest()
print("mapped", flush=True)
sys.stdin.read()
print("same" if hashlib.sha256(mapped).hexdigest() == before else "moved")
"""

NEW_FILE = {Strategy.REFLINK, Strategy.COPY}


@contextmanager
def mapped_elsewhere(path: Path) -> Iterator[None]:
    """Another process has the file mapped; at the end its bytes must be those of the start."""
    with subprocess.Popen(
        [sys.executable, "-c", READER, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as reader:
        assert reader.stdout is not None
        assert reader.stdout.readline() == "mapped\n"
        yield
        said, _ = reader.communicate("")
        assert said == "same\n"


def test_force_puts_a_new_file_in_the_place_of_one_in_use(llama: Path) -> None:
    original, inode = llama.read_bytes(), llama.stat().st_ino
    with mapped_elsewhere(llama):
        with pytest.raises(EditError, match="--force") as caught:
            rewrite(llama, PlanRequest(target_length=8192))
        assert caught.value.code == "in_use"
        planned = rewrite(llama, PlanRequest(target_length=8192, force=True), dry_run=True).receipt
        receipt = rewrite(llama, PlanRequest(target_length=8192, force=True)).receipt
        assert planned.strategy is receipt.strategy
        assert receipt.strategy in NEW_FILE
        assert receipt.in_use
    edited, replaced = llama.read_bytes(), llama.stat().st_ino
    assert replaced != inode
    # There is a filler now: alone, this edit would overwrite.
    with mapped_elsewhere(llama):
        assert (
            rewrite(llama, PlanRequest(target_length=4096, force=True)).receipt.strategy in NEW_FILE
        )
    with mapped_elsewhere(llama):
        with pytest.raises(EditError, match="--force"):
            undo(llama)
        undone = undo(llama, force=True)
        assert undone.strategy in NEW_FILE
        assert undone.in_use
    assert edited != original == llama.read_bytes()
    assert list(llama.parent.iterdir()) == [llama]


@pytest.mark.parametrize("wanted", [Strategy.INSERT, Strategy.OVERWRITE])
def test_no_strategy_moves_the_bytes_of_a_file_in_use(llama: Path, wanted: Strategy) -> None:
    before = llama.read_bytes()
    with mapped_elsewhere(llama), pytest.raises(EditError, match="leave --strategy out") as caught:
        rewrite(llama, PlanRequest(target_length=8192, force=True), strategy=wanted)
    assert caught.value.code == "in_use"
    assert llama.read_bytes() == before


class NoLeases(FileSystem):
    """The owner of the file, or the file system, gives no leases."""

    @contextmanager
    def lease(self, descriptor: int) -> Iterator[int]:
        yield errno.EACCES


@pytest.mark.parametrize("force", [False, True])
def test_a_file_that_may_be_in_use_is_replaced_with_force_too(llama: Path, force: bool) -> None:
    original, files = llama.read_bytes(), NoLeases()
    with mapped_elsewhere(llama):
        done = rewrite(llama, PlanRequest(target_length=8192, force=force), files=files).receipt
        assert done.strategy in NEW_FILE
        assert not done.in_use
    with mapped_elsewhere(llama):
        assert undo(llama, force=force, files=files).strategy in NEW_FILE
    assert llama.read_bytes() == original


def test_a_half_done_file_in_use_is_recovered_in_place_by_force(
    llama: Path, inserting: int
) -> None:
    original, inode = llama.read_bytes(), llama.stat().st_ino
    with pytest.raises(PowerFailure):
        rewrite(llama, PlanRequest(target_length=8192), files=StopsBeforeMoving())
    poisoned = llama.read_bytes()
    assert poisoned[:4] != MAGIC
    with llama.open("rb"):
        with pytest.raises(EditError, match="no program can load it") as caught:
            recover(llama)
        assert caught.value.code == "in_use"
        assert llama.read_bytes() == poisoned
        assert recover(llama, force=True).state is State.RESTORED
    assert llama.read_bytes() == original
    assert llama.stat().st_ino == inode


def test_recover_leaves_a_file_alone_that_may_be_loaded(llama: Path, inserting: int) -> None:
    """Before the magic is taken away, and after it is back, only a journal is too many."""
    original, seen = llama.read_bytes(), set()
    for stop in range(1, 100):
        llama.unlink()
        llama.write_bytes(original)
        try:
            rewrite(llama, PlanRequest(target_length=8192), files=StoppingDisk(stop))
        except PowerFailure:
            if not journals.path_for(llama).exists():
                recover(llama)
                continue
            found = llama.read_bytes()
            if found[:4] == MAGIC:
                seen.add(found == original)
                with mapped_elsewhere(llama):
                    for force in (False, True):
                        with pytest.raises(EditError, match="the model is complete") as caught:
                            recover(llama, force=force)
                        assert caught.value.code == "in_use"
                assert llama.read_bytes() == found
            recover(llama)
        else:
            break
    assert seen == {True, False}
