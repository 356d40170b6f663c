"""Bringing a file to its old or its new state after an edit in place was cut off.

Inserting and collapsing a range is not atomic: after a power failure the part of the file behind
some place p has moved and the part before has not. A half-moved file shows exactly one hole, as
long as the range, at p; moving back, or on, at p completes the move. Recovery decides by looking
at the file, never by assuming how far the edit came, and changes nothing when what it sees fits
no state that an edit can leave.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, NoReturn

from ggufext.errors import JournalError
from ggufext.header.header import POISONED_MAGIC
from ggufext.opened import history
from ggufext.opened import journal as journals
from ggufext.opened.files import draft_of
from ggufext.opened.journal import Direction, Journal

if TYPE_CHECKING:
    from pathlib import Path

    from ggufext.opened.files import FileSystem
    from ggufext.opened.patch import Patch


class State(Enum):
    """How an undo or a recovery left a file."""

    RESTORED = "restored"
    """As it was before the edit."""
    FINISHED = "finished"
    """As the edit wanted it."""
    UNTOUCHED = "untouched"
    """There was nothing to do."""
    POSSIBLE = "possible"
    """An exact undo is possible; nothing was done."""


def recover_open_file(files: FileSystem, descriptor: int, path: Path, journal: Journal) -> State:
    """Complete or take back the edit of a journal, then remove the journal.

    Running it again, or cutting it off anywhere and running it again, ends the same.

    Raises
    ------
    JournalError
        ``unclear_state``: what was seen fits no state of this edit; nothing was changed.
    """
    patch = journal.patch
    shifted = _finish_shift(files, descriptor, path, journal)
    target = patch if shifted else patch.inverted()
    # Where a file stays of one size only its bytes tell how far the edit came.
    if not patch.growth and _is_complete(files, descriptor, patch):
        target, shifted = patch, True
    write_changes(files, descriptor, target)
    commit(files, descriptor, target)
    _settle_record(files, path, journal, changed=shifted)
    journals.remove(files, path)
    if journal.direction is Direction.EDIT:
        return State.FINISHED if shifted else State.RESTORED
    return State.RESTORED if shifted else State.UNTOUCHED


def _settle_record(files: FileSystem, path: Path, journal: Journal, *, changed: bool) -> None:
    """Let the record beside a file be the one of its state."""
    place = history.sidecar(path)
    if not changed:
        files.discard(draft_of(place))
    elif journal.record_beside is None:
        files.take_away(place)
    else:
        files.stage(place, journal.record_beside.encode("utf-8"))
        files.publish(place)


def poison(files: FileSystem, descriptor: int, patch: Patch) -> None:
    """Take the magic away: from here on no loader accepts the file."""
    files.write(descriptor, 0, POISONED_MAGIC)
    files.sync(descriptor)
    if patch.growth < 0:
        # The bytes that come to lie at the start when the range is taken out.
        files.write(descriptor, -patch.growth, POISONED_MAGIC)
        files.sync(descriptor)


def lengthen(files: FileSystem, descriptor: int, patch: Patch) -> None:
    """Append what the file grows by at its end, before anything moves."""
    if patch.size_moving > patch.size:
        files.write(descriptor, patch.tail_start, patch.new_tail)
        files.sync(descriptor)


def write_changes(files: FileSystem, descriptor: int, patch: Patch) -> None:
    """Write everything that a patch changes but the magic, at its place after the patch."""
    magic = len(POISONED_MAGIC)
    files.write(descriptor, magic, patch.new_front[magic:])
    for span in patch.spans:
        files.write(descriptor, span.offset + patch.growth, span.new)
    write_tail(files, descriptor, patch)
    files.sync(descriptor)


def write_tail(files: FileSystem, descriptor: int, patch: Patch) -> None:
    """Give a file whose data has moved its new end."""
    if patch.new_tail:
        files.write(descriptor, patch.tail_start + patch.growth, patch.new_tail)
    if files.size(descriptor) > patch.size_after:
        files.truncate(descriptor, patch.size_after)


def commit(files: FileSystem, descriptor: int, patch: Patch) -> None:
    """Put the magic back: the file is complete."""
    files.write(descriptor, 0, patch.new_front[: len(POISONED_MAGIC)])
    files.sync(descriptor)


def _finish_shift(files: FileSystem, descriptor: int, path: Path, journal: Journal) -> bool:
    """Make the file wholly shifted or wholly unshifted; whether it is shifted then."""
    patch = journal.patch
    growth, length = patch.growth, abs(patch.growth)
    holes, size = files.holes(descriptor), files.size(descriptor)

    def check(shifted_from: int | None, shifted_to: int | None = None) -> None:
        _check_fingerprints(files, descriptor, path, journal, shifted_from, shifted_to)

    if not growth:
        if not min(patch.size, patch.size_after) <= size <= patch.size_moving:
            _unclear(path, size, holes)
        check(None)
        return False
    if growth > 0:
        # What is left of the inserted range where writing the front had not come yet.
        holes = tuple((start, end) for start, end in holes if end > length)
    small, large = sorted((patch.size_moving, patch.size_moving + growth))
    # The tail grows before anything moves, and shrinks when everything has moved.
    shortest = min(patch.size, patch.size_after)
    at_end = len(holes) == 1 and holes[0][0] >= small and holes[0][1] == size
    if at_end or (not holes and shortest <= size < large):
        # The size grows before anything moves up and shrinks after everything moved down; xfs
        # shows it rounded up to a block on the way.
        shifted = growth < 0
        check(0 if shifted else None)
        if size > small:
            files.truncate(descriptor, small)
            files.sync(descriptor)
        return shifted
    if size != large:
        _unclear(path, size, holes)
    if not holes:
        shifted = growth > 0
        check(0 if shifted else None)
        return shifted
    if len(holes) != 1:
        _unclear(path, size, holes)
    ((start, end),) = holes
    if growth < 0 and end <= length:
        # The range is being emptied; nothing has moved yet.
        start, end = 0, length
    if end - start != length:
        _unclear(path, size, holes)
    if growth > 0:
        check(start)
    else:
        check(0, start)
    files.collapse_range(descriptor, start, length)
    files.sync(descriptor)
    return growth < 0


def _check_fingerprints(
    files: FileSystem,
    descriptor: int,
    path: Path,
    journal: Journal,
    shifted_from: int | None,
    shifted_to: int | None,
) -> None:
    """Whether the data stands where a state says.

    Blocks from `shifted_from` on (None: none) and before `shifted_to` (None: all) have moved by
    the growth; both are places before an insert and after a collapse.
    """
    growth = journal.patch.growth
    for mark in journal.fingerprints:
        place = mark.offset + min(growth, 0)
        moved = shifted_from is not None and place >= shifted_from
        moved = moved and (shifted_to is None or place < shifted_to)
        offset = mark.offset + (growth if moved else 0)
        if journals.fingerprint_at(files, descriptor, offset, mark.size) != mark.sha256:
            _unclear(path, files.size(descriptor), files.holes(descriptor), mark.offset)


def _is_complete(files: FileSystem, descriptor: int, patch: Patch) -> bool:
    """Whether the file holds everything that the patch wanted, the magic included."""
    if files.read(descriptor, 0, len(patch.new_front)) != patch.new_front:
        return False
    return files.size(descriptor) == patch.size_after and holds_data(files, descriptor, patch)


def holds_data(files: FileSystem, descriptor: int, patch: Patch) -> bool:
    """Whether what a patch changes behind the front stands at its place after the patch."""
    tail = files.read(descriptor, patch.tail_start + patch.growth, len(patch.new_tail))
    return tail == patch.new_tail and all(
        files.read(descriptor, s.offset + patch.growth, len(s.new)) == s.new for s in patch.spans
    )


def _unclear(
    path: Path, size: int, holes: tuple[tuple[int, int], ...], offset: int | None = None
) -> NoReturn:
    seen = f"size {size:,} bytes, holes {list(holes)[:4]}"
    if offset is not None:
        seen += f", other data than expected near byte {offset:,}"
    raise JournalError(
        code="unclear_state",
        path=path,
        message=f"the file fits no state that the interrupted edit can leave ({seen}); nothing "
        "was changed and the journal is kept; something else wrote to the file",
    )
