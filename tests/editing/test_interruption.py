"""Rewrite, undo and recover stopped after every operation: the file ends as old or as new."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from editing.disk import (
    FailingDisk,
    InterruptedDisk,
    LosingDisk,
    PowerFailure,
    RecordingDisk,
    StoppingDisk,
)
from gguf_bytes import SMALLEST_LLAMA, SMALLEST_TENSORS, U32, gguf_bytes
from ggufext.editing.recovery import State
from ggufext.editing.rewrite import recover, rewrite, undo
from ggufext.errors import EditError, HeaderError
from ggufext.header.frequencies import inverse_frequencies, llama3_factors
from ggufext.header.header import POISONED_MAGIC, read_header
from ggufext.opened import history, strategies
from ggufext.opened import journal as journals
from ggufext.opened.files import FileSystem
from ggufext.opened.patch import HISTORY_KEY
from ggufext.opened.strategies import Strategy
from ggufext.planning.methods import Method
from ggufext.planning.request import PlanRequest
from random_model import write_random_model
from rewriting import edit_with

if TYPE_CHECKING:
    from pathlib import Path

#: More than any of the operations here needs.
MANY = 100


Request = dict[str, Any] | None

#: A text that fits no filler, and one that fits the room of an earlier edit.
LONG, SHORT = "long" * 3000, "short"

#: What a file holds before an operation, and what the operation is: the request of a rewrite, the
#: values to set, or None for undo.
OPERATIONS: dict[str, tuple[Request, Request]] = {
    "insert": (None, {"method": Method.YARN}),
    "overwrite": ({"method": Method.YARN}, {"method": Method.GAMMA}),
    "undo": ({"method": Method.YARN}, None),
    "append a tensor": (None, {"method": Method.LLAMA3}),
    "undo an append": ({"method": Method.LLAMA3}, None),
    "replace the appended tensor": (
        {"method": Method.LLAMA3},
        {"method": Method.YARN, "keep_short": True},
    ),
    "change the appended tensor": ({"method": Method.LLAMA3}, {"method": Method.LLAMA3}),
    "drop the appended tensor": ({"method": Method.LLAMA3}, {"method": Method.GAMMA}),
    "set keys by insert": (None, {"values": {"general.name": LONG, "my.list:u8[]": [1, 2]}}),
    "set a key by overwrite": ({"method": Method.YARN}, {"values": {"general.name": SHORT}}),
    "set a key beside an appended tensor": (
        {"method": Method.LLAMA3},
        {"values": {"general.name": LONG}},
    ),
    "rewrite what was set": ({"values": {"general.name": LONG}}, {"method": Method.YARN}),
    "undo what was set": ({"values": {"general.name": LONG}}, None),
}

#: With a text behind a large array, in whose place a gap is made.
LATE: dict[str, tuple[Request, Request]] = {
    "leave a gap": (None, {"values": {"late": LONG}}),
    "close a gap": ({"values": {"late": LONG}}, None),
}

#: With the model's own tensor of factors.
OWN_TENSOR: dict[str, tuple[Request, Request]] = {
    "overwrite a tensor": ({"method": Method.YARN}, {"method": Method.LLAMA3}),
    "undo an overwritten tensor": ({"method": Method.LLAMA3}, None),
}


#: In a file that cannot grow, with values for all keys: the record lies beside it.
BESIDE: dict[str, tuple[Request, Request]] = {
    "write a record beside the file": (None, {"method": Method.YARN}),
    "replace the record beside the file": ({"method": Method.YARN}, {"method": Method.GAMMA}),
    "undo with the record beside the file": ({"method": Method.YARN}, None),
    "keep no record any more": ({"method": Method.YARN}, {"keep_history": False}),
    "set a value where it stands": (None, {"values": {"llama.rope.freq_base": 20000.0}}),
}

#: The record moves beside the file, since the file carries one that does not fit.
RETIRED: dict[str, tuple[Request, Request]] = {
    "retire a record in the file": (None, {"method": Method.YARN}),
}

PRESENT: dict[str, object] = {
    **SMALLEST_LLAMA,
    "llama.rope.freq_base": 10000.0,
    "llama.rope.scaling.type": "none",
    "llama.rope.scaling.factor": 1.0,
    "llama.rope.scaling.original_context_length": U32(2048),
}


class Case:
    """A file, an operation on it, and what it may look like afterwards."""

    def __init__(self, path: Path, name: str) -> None:
        self.path = path
        self.first, self.request = (OPERATIONS | LATE | OWN_TENSOR | BESIDE | RETIRED)[name]
        self.original = path.read_bytes()

    def reset(self) -> None:
        """Put the file into the state that the operation starts from."""
        for left in self.path.parent.iterdir():
            left.unlink()
        self.path.write_bytes(self.original)
        if self.first is not None:
            edit_with(self.path, self.first, target_length=8192)
        self.before = self.path.read_bytes()

    def run(self, files: FileSystem) -> None:
        if self.request is None:
            undo(self.path, files=files)
        else:
            done = edit_with(self.path, self.request, target_length=16384, files=files)
            assert done.receipt.strategy is not None

    def assert_old_or_new(self, state: State | None = None) -> None:
        """The invariant: the bytes are those from before, or those that were wanted, with undo."""
        found = self.path.read_bytes()
        assert not journals.path_for(self.path).exists()
        promised = self.first is not None
        if found == self.before:
            assert state in {None, State.RESTORED, State.UNTOUCHED}
        elif self.request is None:
            assert found == self.original
            promised = False
        else:
            header = read_header(self.path)
            wanted = self.request.get("values", {"llama.context_length": 16384})
            for name, value in wanted.items():
                found_value = header.value(name.partition(":")[0])
                assert found_value == (tuple(value) if isinstance(value, list) else value)
            promised = self.request.get("keep_history", True)
        if promised:
            undo(self.path)
            assert self.path.read_bytes() == self.original
        else:
            with pytest.raises(EditError):
                undo(self.path)


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here depends on the disk: the doubles decide what reached it."""
    monkeypatch.setattr(FileSystem, "sync", lambda *_: None)
    monkeypatch.setattr(FileSystem, "sync_folder", lambda *_: None)


@pytest.fixture(params=[*OPERATIONS, *LATE, *OWN_TENSOR, *BESIDE, *RETIRED])
def case(
    request: pytest.FixtureRequest,
    llama: Path,
    inserting: int,
    monkeypatch: pytest.MonkeyPatch,
) -> Case:
    return make_case(request.param, llama, monkeypatch)


def make_case(name: str, path: Path, monkeypatch: pytest.MonkeyPatch) -> Case:
    """A case and its model file."""
    if name in OWN_TENSOR:
        native = llama3_factors(inverse_frequencies(10_000.0, 32), 4.0, 512)
        tensors = {"rope_freqs.weight": np.array(native, dtype=np.float32)}
        write_random_model(path, tensors=tensors)
    if name in LATE:
        late = {"words": ["word"] * 500, "late": "x" * 50}
        path.write_bytes(gguf_bytes({**SMALLEST_LLAMA, **late}, SMALLEST_TENSORS))
    if name in BESIDE or name in RETIRED:
        monkeypatch.setattr(strategies, "insert_block", lambda *_: None)
        keys = PRESENT | ({HISTORY_KEY: "x" * 40} if name in RETIRED else {})
        path.write_bytes(gguf_bytes(keys, SMALLEST_TENSORS))
    return Case(path, name)


def refusal(case: Case, disk: FailingDisk) -> EditError | None:
    """The error of an operation that was refused; None where another way was found."""
    try:
        case.run(disk)
    except EditError as error:
        return error
    return None


def operations(case: Case) -> int:
    case.reset()
    disk = RecordingDisk()
    case.run(disk)
    assert len(disk.done) < MANY
    return len(disk.done)


@pytest.mark.parametrize("tear", [False, True], ids=["whole writes", "torn writes"])
def test_recover_ends_at_old_or_new_wherever_the_operation_stopped(case: Case, tear: bool) -> None:
    for stop in range(1, operations(case) + 1):
        case.reset()
        with pytest.raises(PowerFailure):
            case.run(StoppingDisk(stop, tear=tear))
        state = recover(case.path).state
        case.assert_old_or_new(state)


def test_what_a_power_cut_takes_with_it_does_not_matter(
    case: Case, tmp_path_factory: pytest.TempPathFactory
) -> None:
    check_power_cuts(case, tmp_path_factory.mktemp("hidden"))


def check_power_cuts(
    case: Case, hidden: Path, *, seeds: int = 4, skipping: int | None = None
) -> None:
    """Cut the power after every operation, with several choices of what is lost."""
    for stop in range(1, operations(case) + 1):
        for seed in range(seeds):
            case.reset()
            with pytest.raises(PowerFailure):
                case.run(LosingDisk(stop, hidden, seed, skipping=skipping))
            found = case.path.read_bytes()
            state = recover(case.path).state
            if found[:4] == b"GGUF":
                assert case.path.read_bytes() == found
            case.assert_old_or_new(state)
            for left in hidden.iterdir():
                left.unlink()


@pytest.mark.parametrize(
    "tear",
    [False, pytest.param(True, marks=pytest.mark.torture)],
    ids=["whole writes", "torn writes"],
)
def test_recover_may_itself_be_stopped_anywhere_and_run_again(case: Case, tear: bool) -> None:
    for stop in range(1, operations(case) + 1):
        for second in range(1, MANY):
            case.reset()
            with pytest.raises(PowerFailure):
                case.run(StoppingDisk(stop))
            disk = StoppingDisk(second, tear=tear)
            try:
                recover(case.path, files=disk)
            except PowerFailure:
                recover(case.path)
                case.assert_old_or_new()
            else:
                case.assert_old_or_new()
                break


def test_a_stopped_file_is_refused_by_readers_or_is_old_or_new(case: Case) -> None:
    for stop in range(1, operations(case) + 1):
        case.reset()
        with pytest.raises(PowerFailure):
            case.run(StoppingDisk(stop))
        found = case.path.read_bytes()
        if found[:4] == b"GGUF":
            recover(case.path)
            assert case.path.read_bytes() == found
        else:
            with pytest.raises(HeaderError, match="recover") as caught:
                read_header(case.path)
            assert caught.value.code == "interrupted_edit"


def test_an_interrupted_file_is_not_edited_before_it_is_recovered(
    llama: Path, inserting: int
) -> None:
    case = Case(llama, "insert")
    for stop in range(1, operations(case) + 1):
        case.reset()
        with pytest.raises(PowerFailure):
            case.run(StoppingDisk(stop))
        if not journals.path_for(llama).exists():
            continue
        found = llama.read_bytes()
        with pytest.raises(HeaderError) as caught:
            rewrite(llama, PlanRequest(target_length=8192))
        assert caught.value.code == "interrupted_edit"
        assert llama.read_bytes() == found


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
def test_a_refused_operation_leaves_the_file_as_it_was_or_recoverable(
    case: Case, code: int
) -> None:
    for at in range(operations(case)):
        case.reset()
        disk = FailingDisk(at, code)
        error = refusal(case, disk)
        if error is not None and error.code == "interrupted_edit":
            assert "recover" in error.message
        elif error is not None:
            assert error.code == {errno.EIO: "os_error", errno.ENOSPC: "no_space"}[code]
            assert error.message.endswith("nothing was changed")
            assert case.path.read_bytes() == case.before
        if journals.path_for(case.path).exists():
            recover(case.path)
        case.assert_old_or_new()


def test_control_c_leaves_the_old_or_the_new_file_and_nothing_beside_it(case: Case) -> None:
    for at in range(1, operations(case) + 1):
        case.reset()
        with pytest.raises(KeyboardInterrupt):
            case.run(InterruptedDisk(at))
        assert {*case.path.parent.iterdir()} <= {case.path, history.sidecar(case.path)}
        case.assert_old_or_new()


def test_a_sync_that_failed_is_not_asked_again(llama: Path, inserting: int) -> None:
    case = Case(llama, "insert")
    total = operations(case)
    for at in range(total):
        case.reset()
        disk = FailingDisk(at)
        error = refusal(case, disk)
        if disk.refused == "sync" and error is not None:
            assert error.code == "interrupted_edit"
            assert disk.done[-1] != "sync"
            unchanged = llama.read_bytes() == case.before
            assert unchanged or journals.path_for(llama).exists()
        if journals.path_for(llama).exists():
            recover(llama)
        case.assert_old_or_new()


@pytest.mark.parametrize("tear", [False, True], ids=["whole writes", "torn writes"])
def test_a_copy_stopped_anywhere_leaves_the_old_or_the_new_file(llama: Path, tear: bool) -> None:
    original = llama.read_bytes()

    def copy(files: FileSystem) -> None:
        rewrite(llama, PlanRequest(target_length=16384), strategy=Strategy.COPY, files=files)

    disk = RecordingDisk()
    copy(disk)
    for stop in range(1, len(disk.done) + 1):
        for left in llama.parent.iterdir():
            left.unlink()
        llama.write_bytes(original)
        with pytest.raises(PowerFailure):
            copy(StoppingDisk(stop, tear=tear))
        recover(llama)
        assert list(llama.parent.iterdir()) == [llama]
        if llama.read_bytes() != original:
            undo(llama)
        assert llama.read_bytes() == original


class ForgettingDisk(FileSystem):
    """Says that it wrote the front of a header, and did not."""

    def write(self, descriptor: int, offset: int, data: bytes) -> None:
        if offset != len(POISONED_MAGIC) or b"llama.context_length" not in data:
            super().write(descriptor, offset, data)


def test_what_was_not_written_is_not_committed(llama: Path, inserting: int) -> None:
    rewrite(llama, PlanRequest(target_length=8192))
    content = llama.read_bytes()
    with pytest.raises(EditError) as caught:
        rewrite(llama, PlanRequest(target_length=16384), files=ForgettingDisk())
    assert caught.value.code == "not_verified"
    assert llama.read_bytes() == content
