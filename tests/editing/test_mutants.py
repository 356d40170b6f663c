"""The protocol with one thing left out: each time a test of this folder must fail."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from editing import test_half_moved, test_interruption, test_promises
from ggufext.editing import application, edit, recovery
from ggufext.errors import GgufextError
from ggufext.header.header import POISONED_MAGIC
from ggufext.opened import journal, restoration
from ggufext.opened.files import FileSystem
from ggufext.planning.methods import Method

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ggufext.opened.patch import Patch

#: The case whose edit has every step: a record beside the file, and values in their place.
CASE = "write a record beside the file"

#: In order: of the record's draft, the journal, its name, the poison, the changes, the magic. What
#: follows takes away what is no longer needed.
SYNCS = ["record", "journal", "name of the journal", "poison", "changes", "magic"]


def must_fail(check: Callable[[], None]) -> None:
    """A check of the suite fails, in one of the ways in which a test can."""
    with pytest.raises((AssertionError, GgufextError, pytest.fail.Exception)):
        check()


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """The doubles decide what reached the disk."""
    monkeypatch.setattr(FileSystem, "sync", lambda *_: None)
    monkeypatch.setattr(FileSystem, "sync_folder", lambda *_: None)


@pytest.mark.usefixtures("no_waiting")
@pytest.mark.parametrize("number", range(len(SYNCS)), ids=SYNCS)
def test_a_missing_sync_is_noticed(
    llama: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
) -> None:
    case = test_interruption.make_case(CASE, llama, monkeypatch)
    hidden = tmp_path_factory.mktemp("hidden")
    must_fail(lambda: test_interruption.check_power_cuts(case, hidden, seeds=16, skipping=number))


@pytest.mark.usefixtures("no_waiting")
@pytest.mark.parametrize("name", [CASE, "undo"])
def test_a_skipped_poison_is_noticed(
    llama: Path, monkeypatch: pytest.MonkeyPatch, name: str, inserting: int
) -> None:
    case = test_interruption.make_case(name, llama, monkeypatch)
    monkeypatch.setattr(recovery, "poison", lambda *_: None)
    must_fail(
        lambda: test_interruption.test_a_stopped_file_is_refused_by_readers_or_is_old_or_new(case)
    )


@pytest.mark.usefixtures("no_waiting")
def test_a_magic_that_comes_back_too_early_is_noticed(
    llama: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = test_interruption.make_case(CASE, llama, monkeypatch)
    hidden = tmp_path_factory.mktemp("hidden")
    write_changes = recovery.write_changes

    def commit_first(files: FileSystem, descriptor: int, patch: Patch) -> None:
        recovery.commit(files, descriptor, patch)
        write_changes(files, descriptor, patch)

    monkeypatch.setattr(recovery, "write_changes", commit_first)
    must_fail(lambda: test_interruption.check_power_cuts(case, hidden))


@pytest.mark.usefixtures("no_waiting")
def test_an_edit_without_a_journal_is_noticed(
    llama: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = test_interruption.make_case(CASE, llama, monkeypatch)
    hidden = tmp_path_factory.mktemp("hidden")
    monkeypatch.setattr(journal, "write", lambda *_: None)
    must_fail(lambda: test_interruption.check_power_cuts(case, hidden))


@pytest.mark.parametrize("left", [0, 1], ids=["all", "all but the first"])
def test_lost_fingerprints_are_noticed(
    llama: Path, inserting: int, monkeypatch: pytest.MonkeyPatch, left: int
) -> None:
    taken = journal.fingerprints
    monkeypatch.setattr(journal, "fingerprints", lambda *args: taken(*args)[:left])
    must_fail(
        lambda: test_half_moved.test_a_file_that_something_else_changed_is_left_alone(
            llama, inserting, "data"
        )
    )


HOLES: dict[str, Callable[[tuple[int, int]], tuple[int, int]]] = {
    "a block too far": lambda hole: (hole[0] + 4096, hole[1] + 4096),
    "a block too early": lambda hole: (hole[0] - 4096, hole[1] - 4096),
}


@pytest.mark.parametrize("wrong", HOLES.values(), ids=HOLES)
@pytest.mark.parametrize(
    "check",
    [
        test_half_moved.test_an_insert_that_stopped_at_any_block_is_taken_back,
        test_half_moved.test_a_collapse_that_stopped_at_any_block_is_completed,
    ],
    ids=["insert", "collapse"],
)
def test_a_wrong_hole_is_noticed(
    llama: Path,
    inserting: int,
    monkeypatch: pytest.MonkeyPatch,
    wrong: Callable[[tuple[int, int]], tuple[int, int]],
    check: Callable[..., None],
) -> None:
    seen = FileSystem.holes

    def holes(self: FileSystem, descriptor: int) -> tuple[tuple[int, int], ...]:
        found = seen(self, descriptor)
        poisoned = self.read(descriptor, 0, 4) in {POISONED_MAGIC, bytes(4)}
        return tuple(map(wrong, found)) if poisoned else found

    monkeypatch.setattr(FileSystem, "holes", holes)
    must_fail(lambda: check(llama, inserting, Method.GAMMA))


@pytest.mark.parametrize(
    "check",
    [
        test_promises.test_an_undo_that_would_leave_other_factors_is_refused,
        test_promises.test_a_record_with_other_tensor_bytes_is_refused,
    ],
    ids=["in the file", "in the record"],
)
def test_a_record_that_hashes_the_header_only_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, check: Callable[[Path], None]
) -> None:
    monkeypatch.setattr(restoration, "_hash_of_factors", lambda *_: "")
    must_fail(lambda: check(tmp_path))


def test_a_record_that_is_not_bound_to_its_edit_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restoration, "_hash_of_rest", lambda *_: "")
    must_fail(
        lambda: test_promises.test_a_record_that_stayed_beside_a_new_download_says_nothing_of_it(
            tmp_path, monkeypatch
        )
    )


def test_an_undo_that_was_not_checked_is_noticed(
    llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edit, "_check_undo", lambda *_: None)
    must_fail(
        lambda: test_promises.test_an_undo_that_would_not_lead_back_is_never_promised(
            llama, lambda record: {"layout": record.layout[1:]}, monkeypatch
        )
    )


def test_an_edit_that_does_not_read_back_is_noticed(
    llama: Path, inserting: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(application, "_verify", lambda *_: None)
    must_fail(
        lambda: test_interruption.test_what_was_not_written_is_not_committed(llama, inserting)
    )
