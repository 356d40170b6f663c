"""Putting a patch into a file: in place by the journal protocol, or by a copy."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ggufext.editing import guards, recovery
from ggufext.editing import journal as journals
from ggufext.editing.files import SyncError
from ggufext.editing.journal import Direction, Journal
from ggufext.editing.recovery import State
from ggufext.errors import EditError, command
from ggufext.header.header import POISONED_MAGIC, beside

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ggufext.editing.files import FileSystem
    from ggufext.editing.patch import Patch

#: Bytes read at a time where a header is compared.
_PIECE = 1024 * 1024

#: A copy under way lies beside its target under this name.
COPY_SUFFIX = ".ggufext-copy"


def apply_in_place(
    files: FileSystem,
    descriptor: int,
    path: Path,
    patch: Patch,
    *,
    name: Path | str,
    direction: Direction,
    block: int,
    expected_header: bytes,
) -> None:
    """Put a patch into the open, locked and leased file, by the journal protocol.

    Parameters
    ----------
    name : Path or str
        The file as the user named it.
    block : int
        Bytes; `patch.growth` is a multiple of it.
    expected_header : bytes
        The header as it must read afterwards.

    Raises
    ------
    SyncError
        The journal is kept, where it was complete.
    EditError
        ``interrupted``: the journal is kept. ``not_verified``: what was read back differs; the
        file is as before, or the edit was completed by writing it again, as the message says.
    OSError
        After the edit was taken back: the file is as before.
    KeyboardInterrupt
        The file is as before, or the edit complete.
    """
    journal = Journal(
        direction=direction,
        patch=patch,
        inode=os.fstat(descriptor).st_ino,
        block=block,
        fingerprints=journals.fingerprints(files, descriptor, patch, block),
    )
    try:
        journals.write(files, journal, path)
        recovery.poison(files, descriptor, patch)
        recovery.lengthen(files, descriptor, patch)
        if patch.growth > 0:
            files.insert_range(descriptor, 0, patch.growth)
        elif patch.growth < 0:
            files.collapse_range(descriptor, 0, -patch.growth)
        recovery.write_changes(files, descriptor, patch)
        _verify(files, descriptor, path, journal, expected_header)
        recovery.commit(files, descriptor, patch)
        journals.remove(files, path)
    except SyncError:
        raise
    except (OSError, EditError, KeyboardInterrupt) as error:
        done = _settle(files, descriptor, path, name, journal, error)
        if done and isinstance(error, OSError):
            return
        if isinstance(error, EditError):
            error.message += "; it was written again" if done else "; the edit was taken back"
        raise


def _verify(
    files: FileSystem, descriptor: int, path: Path, journal: Journal, expected_header: bytes
) -> None:
    """Compare the file with what it has to be, the magic excepted."""
    same = files.size(descriptor) == journal.patch.size_after
    same = same and _holds(files, descriptor, expected_header, start=len(POISONED_MAGIC))
    same = same and recovery.holds_data(files, descriptor, journal.patch)
    same = same and all(
        journals.fingerprint_at(files, descriptor, mark.offset + journal.patch.growth, mark.size)
        == mark.sha256
        for mark in journal.fingerprints
    )
    if not same:
        raise EditError(
            code="not_verified",
            path=path,
            message="what was read back is not what was written: the disk or its driver may be "
            "failing",
        )


def _holds(files: FileSystem, descriptor: int, expected: bytes, *, start: int = 0) -> bool:
    """Whether a file starts with these bytes, but for those before `start`."""
    pieces = ((at, expected[at : at + _PIECE]) for at in range(start, len(expected), _PIECE))
    return all(files.read(descriptor, at, len(piece)) == piece for at, piece in pieces)


def _settle(
    files: FileSystem,
    descriptor: int,
    path: Path,
    name: Path | str,
    journal: Journal,
    error: BaseException,
) -> bool:
    """Bring a failed edit to an end at once: whether all of it is done, or nothing.

    Where that fails too, the error says how to recover.
    """
    if not journals.path_for(path).exists():
        return False  # nothing had begun
    try:
        state = recovery.recover_open_file(files, descriptor, path, journal)
    except (OSError, EditError):
        raise EditError(
            code="interrupted",
            path=path,
            message=f"the edit failed ({error}) and could not be taken back; the journal is kept: "
            f"run `{command('recover', name)}`",
        ) from error
    complete = State.FINISHED if journal.direction is Direction.EDIT else State.RESTORED
    return state is complete


def apply_by_copy(
    files: FileSystem,
    source: int,
    source_path: Path,
    target_path: Path,
    patch: Patch,
    *,
    expected_header: bytes,
    share: int | None = None,
    progress: Callable[[int, int], None],
) -> None:
    """Write the patched file as a new one, then rename it to `target_path`.

    Parameters
    ----------
    source : int
        Descriptor of the file as it is.
    share : int or None
        Bytes of a block, of which `patch.growth` is a multiple: leave the data in the blocks of
        the old file, from the first whole one on. None copies everything.
    progress : callable
        Called with bytes done and bytes in all.

    Raises
    ------
    EditError
        ``no_space``, ``in_use``, ``changed_meanwhile``, ``not_verified``.
    """
    folder = target_path.parent
    own = shared_from(patch, share) if share else patch.size
    guards.check_space(folder, own + patch.growth + len(patch.new_tail), target_path)
    draft = beside(target_path, COPY_SUFFIX)
    before = os.fstat(source)
    remove_abandoned_copy(files, target_path)
    descriptor = None
    try:
        descriptor = files.create(draft)
        files.lock(descriptor)
        _write_patched(files, source, descriptor, patch, own, progress)
        files.sync(descriptor)
        same = _holds(files, descriptor, expected_header)
        if not (same and recovery.holds_data(files, descriptor, patch)):
            raise EditError(
                code="not_verified",
                path=target_path,
                message="what was read back from the copy is not what was written; nothing was "
                "changed; the disk or its driver may be failing",
            )
        after = os.fstat(source)
        replaced = target_path == source_path and not os.path.samestat(before, target_path.stat())
        if replaced or (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            raise EditError(
                code="changed_meanwhile",
                path=source_path,
                message="was changed by something else during the copy; nothing was replaced; "
                "try again when it is complete",
            )
        files.keep_attributes(source_path, draft)
        files.rename(draft, target_path)
    except BaseException as error:
        # A simulated power failure in the tests is a BaseException that leaves things lying.
        if isinstance(error, (Exception, KeyboardInterrupt)):
            files.discard(draft)
        raise
    finally:
        if descriptor is not None:
            files.close(descriptor)
    files.sync_folder(folder)


def _write_patched(
    files: FileSystem,
    source: int,
    target: int,
    patch: Patch,
    shared: int,
    progress: Callable[[int, int], None],
) -> None:
    """Fill a new file with the patched one: from byte `shared` of the old on in its blocks."""
    done = 0

    def advance(size: int) -> None:
        nonlocal done
        done += size
        progress(done, patch.size_after)

    growth, behind = patch.growth, len(patch.old_front)
    files.write(target, 0, patch.new_front)
    advance(len(patch.new_front))
    files.copy_range(source, behind, target, behind + growth, shared - behind, advance)
    if shared < patch.size:
        files.share_range(source, shared, target, shared + growth, patch.size - shared)
        advance(patch.size - shared)
    for span in patch.spans:
        files.write(target, span.offset + growth, span.new)
    recovery.write_tail(files, target, patch)


def shared_from(patch: Patch, block: int) -> int:
    """First byte, before the patch, from which a new file can share the old one's blocks."""
    return min(-(-len(patch.old_front) // block) * block, patch.size)


def remove_abandoned_copy(files: FileSystem, path: Path) -> None:
    """Remove the unfinished copy that a run which was cut off left beside a file.

    Raises
    ------
    EditError
        ``in_use``: another run is writing it.
    """
    draft = beside(path, COPY_SUFFIX)
    if not draft.exists():
        return
    left = files.open_for_editing(draft)
    abandoned = files.lock(left)
    files.close(left)
    if not abandoned:
        raise EditError(
            code="in_use",
            path=draft,
            message="is being written by another run of ggufext; wait for it",
        )
    files.remove(draft)
