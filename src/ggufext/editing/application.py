"""Putting a patch into a file: in place by the journal protocol, or by a copy."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from typing import TYPE_CHECKING

from ggufext.editing import recovery
from ggufext.editing.recovery import State
from ggufext.errors import EditError, command
from ggufext.header.header import POISONED_MAGIC, companion
from ggufext.opened import beside, guards, history
from ggufext.opened import journal as journals
from ggufext.opened.files import SyncError
from ggufext.opened.journal import Direction, Journal

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ggufext.opened.files import FileSystem
    from ggufext.opened.patch import Patch

#: Bytes read at a time where a header is compared.
_PIECE = 1024 * 1024

#: A copy under way lies beside its target under a name of its own that starts so.
COPY_SUFFIX = ".ggufext-copy."


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
    record_beside: str | None,
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
    record_beside : str or None
        Undo record for beside the file; None where none may lie there afterwards.

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
        record_beside=record_beside,
    )
    committed = False
    # One that lies here still belonged to another file of this name.
    journals.remove(files, path)
    try:
        if record_beside is not None:
            # Now, since there must be room for it before anything changes.
            beside.stage(files, history.sidecar(path), record_beside.encode("utf-8"))
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
        committed = True
        if record_beside is not None:
            beside.publish(files, history.sidecar(path))
        else:
            beside.remove(files, history.sidecar(path))
        journals.remove(files, path)
    except SyncError:
        if not journals.path_for(path).exists():
            files.discard(beside.draft_of(history.sidecar(path)))
        raise
    except (OSError, EditError, KeyboardInterrupt) as error:
        if journals.path_for(path).exists():
            done = _settle(files, descriptor, path, name, journal, error)
        else:
            # Nothing had begun, or everything was done.
            done = committed
            files.discard(beside.draft_of(history.sidecar(path)))
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
    try:
        state = recovery.recover_open_file(files, descriptor, path, journal)
    except (OSError, EditError):
        raise EditError(
            code="interrupted_edit",
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
    replace: bool = False,
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
    replace : bool
        Replace another file than the source that has the target's name.
    progress : callable
        Called with bytes done and bytes in all.

    Raises
    ------
    EditError
        ``no_space``, ``changed_meanwhile``, ``output_exists``, ``not_verified``.
    """
    folder = target_path.parent
    own = shared_from(patch, share) if share else patch.size
    guards.check_space(folder, own + patch.growth + len(patch.new_tail), target_path)
    before = os.fstat(source)
    remove_abandoned_copies(files, target_path)
    draft = companion(target_path, COPY_SUFFIX + secrets.token_hex(3))
    descriptor = None
    try:
        descriptor = files.create(draft)
        files.lock(descriptor)
        _write_patched(files, source, descriptor, patch, own, progress)
        files.keep_attributes(source_path, draft)
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
        changed = (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns)
        if target_path == source_path:
            changed = changed or not os.path.samestat(before, target_path.stat())
        elif not replace and os.path.lexists(target_path):
            raise EditError(
                code="output_exists",
                path=target_path,
                message="appeared while its new content was written, and was left alone; choose "
                "another name, or --force to replace it",
            )
        if changed or not os.path.samestat(os.fstat(descriptor), draft.lstat()):
            raise EditError(
                code="changed_meanwhile",
                path=source_path,
                message="was changed by something else during the copy; nothing was replaced; "
                "try again when it is complete",
            )
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


def remove_abandoned_copies(files: FileSystem, path: Path) -> None:
    """Remove unfinished copies that runs which were cut off left beside a file."""
    digits = secrets.token_hex(3)
    start = companion(path, COPY_SUFFIX + digits).name.removesuffix(digits)
    # What is wrong with the folder is said where the model is opened.
    with suppress(OSError):
        for draft in path.parent.iterdir():
            if draft.name.startswith(start) and draft.is_file() and not draft.is_symlink():
                # One that is somebody else's stays.
                with suppress(FileNotFoundError, PermissionError):
                    _remove_unlocked(files, draft)


def _remove_unlocked(files: FileSystem, draft: Path) -> None:
    descriptor = files.open_for_reading(draft)
    try:
        # Whoever writes one holds its lock.
        if files.lock(descriptor):
            files.remove(draft)
    finally:
        files.close(descriptor)
