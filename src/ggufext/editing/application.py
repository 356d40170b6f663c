"""Putting an edit into a file: in place by the journal protocol, or as a new file."""

from __future__ import annotations

import os
import secrets
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from ggufext.editing import recovery
from ggufext.editing.edit import Edit
from ggufext.editing.recovery import State
from ggufext.errors import EditError, command, of_system
from ggufext.header.header import POISONED_MAGIC, companion
from ggufext.opened import guards, history, strategies
from ggufext.opened import journal as journals
from ggufext.opened.files import SyncError, draft_of
from ggufext.opened.journal import Direction, Journal
from ggufext.opened.patch import FIXED_SIZE, Patch
from ggufext.opened.strategies import DEFAULT_BLOCK, Strategy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from ggufext.opened.files import FileSystem
    from ggufext.opened.model import OpenFile

#: Bytes read at a time where a header is compared.
_PIECE = 1024 * 1024

#: A copy under way lies beside its target under a name of its own that starts so.
COPY_SUFFIX = ".ggufext-copy."


def apply(
    model: OpenFile,
    edit: Edit,
    *,
    direction: Direction,
    copies: Mapping[Path, Path],
    share: bool,
    force: bool,
    progress: Callable[[int, int], None],
) -> None:
    """Put an edit into the file, and its undo record in its place.

    Parameters
    ----------
    copies : mapping of Path to Path
        Where the other parts of a split model go, by where they are. Nothing new stays of them
        where the rest fails.
    share : bool
        Let them share blocks with their sources where that is possible.
    force : bool
        Replace what has the name of the output, or of a copy.
    progress : callable
        Called during each copy with bytes done and bytes in all.

    Raises
    ------
    EditError
        ``no_space``, ``read_only`` or ``os_error``: nothing was changed. ``interrupted_edit``: the
        message says how to recover. ``not_verified``: what was read back differs; the file is as
        before, or the edit was completed by writing it again, as the message says.
        ``changed_meanwhile``, ``output_exists``.
    KeyboardInterrupt
        The file is as before, or the edit complete.
    """
    with _parts_copied(
        model.files, copies, edit.output, share=share, replace=force, progress=progress
    ):
        _apply(model, edit, direction, force=force, progress=progress)


def _apply(
    model: OpenFile,
    edit: Edit,
    direction: Direction,
    *,
    force: bool,
    progress: Callable[[int, int], None],
) -> None:
    files = model.files
    try:
        if edit.strategy in {Strategy.INSERT, Strategy.OVERWRITE}:
            _apply_in_place(model, edit, direction)
            return
        _write_new(files, model.descriptor, model.path, edit, replace=force, progress=progress)
        # They belonged to the file that was there before; the new one holds its record.
        for left in (history.sidecar(edit.output), journals.path_for(edit.output)):
            with suppress(PermissionError):  # somebody else's, which is not trusted
                files.take_away(left)
    except SyncError as error:
        kept = "the model was not changed, or completely: check the disk, then run"
        if journals.path_for(model.path).exists():
            kept = "the journal is kept: check the disk, then run"
        raise EditError(
            code="interrupted_edit",
            path=model.path,
            message=f"the disk did not confirm a write ({error.strerror}); {kept} "
            f"`{command('recover', model.name)}`",
        ) from error
    except OSError as error:
        refusal = of_system(error, edit.output, kind=EditError)
        refusal.message += "; nothing was changed"
        raise refusal from error


def _apply_in_place(model: OpenFile, edit: Edit, direction: Direction) -> None:
    """Put a patch into the open, locked and leased file, by the journal protocol."""
    files, descriptor, path, patch = model.files, model.descriptor, model.path, edit.patch
    record = history.sidecar(path)
    journal = Journal(
        direction=direction,
        patch=patch,
        inode=os.fstat(descriptor).st_ino,
        block=edit.block,
        fingerprints=journals.fingerprints(files, descriptor, patch, edit.block),
        record_beside=edit.record_beside,
    )
    committed = False
    # One that lies here still belonged to another file of this name.
    journals.remove(files, path)
    try:
        if edit.record_beside is not None:
            # Now, since there must be room for it before anything changes.
            files.stage(record, edit.record_beside.encode("utf-8"))
        journals.write(files, journal, path)
        recovery.poison(files, descriptor, patch)
        recovery.lengthen(files, descriptor, patch)
        if patch.growth > 0:
            files.insert_range(descriptor, 0, patch.growth)
        elif patch.growth < 0:
            files.collapse_range(descriptor, 0, -patch.growth)
        recovery.write_changes(files, descriptor, patch)
        _verify(model, journal, edit.expected_header)
        recovery.commit(files, descriptor, patch)
        committed = True
        if edit.record_beside is not None:
            files.publish(record)
        else:
            files.take_away(record)
        journals.remove(files, path)
    except SyncError:
        if not journals.path_for(path).exists():
            files.discard(draft_of(record))
        raise
    except (OSError, EditError, KeyboardInterrupt) as error:
        if journals.path_for(path).exists():
            done = _settle(model, journal, error)
        else:
            # Nothing had begun, or everything was done.
            done = committed
            files.discard(draft_of(record))
        if done and isinstance(error, OSError):
            return
        if isinstance(error, EditError):
            error.message += "; it was written again" if done else "; the edit was taken back"
        raise


def _verify(model: OpenFile, journal: Journal, expected_header: bytes) -> None:
    """Compare the file with what it has to be, the magic excepted."""
    files, descriptor, patch = model.files, model.descriptor, journal.patch
    same = files.size(descriptor) == patch.size_after
    same = same and _holds(files, descriptor, expected_header, start=len(POISONED_MAGIC))
    same = same and recovery.holds_data(files, descriptor, patch)
    same = same and all(
        journals.fingerprint_at(files, descriptor, mark.offset + patch.growth, mark.size)
        == mark.sha256
        for mark in journal.fingerprints
    )
    if not same:
        raise EditError(
            code="not_verified",
            path=model.path,
            message="what was read back is not what was written: the disk or its driver may be "
            "failing",
        )


def _holds(files: FileSystem, descriptor: int, expected: bytes, *, start: int = 0) -> bool:
    """Whether a file starts with these bytes, but for those before `start`."""
    for at in range(start, len(expected), _PIECE):
        size = min(_PIECE, len(expected) - at)
        piece = files.read(descriptor, at, size)
        if len(piece) != size or not expected.startswith(piece, at):
            return False
    return True


def _settle(model: OpenFile, journal: Journal, error: BaseException) -> bool:
    """Bring a failed edit to an end at once: whether all of it is done, or nothing.

    Where that fails too, the error says how to recover.
    """
    try:
        state = recovery.recover_open_file(model.files, model.descriptor, model.path, journal)
    except (OSError, EditError):
        raise EditError(
            code="interrupted_edit",
            path=model.path,
            message=f"the edit failed ({error}) and could not be taken back; the journal is kept: "
            f"run `{command('recover', model.name)}`",
        ) from error
    complete = State.FINISHED if journal.direction is Direction.EDIT else State.RESTORED
    return state is complete


def _write_new(
    files: FileSystem,
    source: int,
    source_path: Path,
    edit: Edit,
    *,
    replace: bool,
    progress: Callable[[int, int], None],
) -> None:
    """Write the patched file as a new one, then rename it to the edit's output.

    A reflink leaves the data in the blocks of the old file, from the first whole one on.
    """
    target_path, patch = edit.output, edit.patch
    folder = target_path.parent
    shares = edit.strategy is Strategy.REFLINK
    own = patch.shared_from(edit.block) if shares else patch.size
    guards.check_space(folder, own + patch.growth + len(patch.new_tail), target_path)
    before = os.fstat(source)
    remove_abandoned_copies(files, target_path)
    draft = companion(target_path, COPY_SUFFIX + secrets.token_hex(3))
    descriptor = None
    try:
        whole = shares and not patch.growth
        descriptor = files.clone(source, draft) if whole else files.create(draft)
        files.lock(descriptor)
        _write_patched(files, source, descriptor, patch, None if whole else own, progress)
        files.keep_attributes(source_path, draft)
        files.sync(descriptor)
        same = _holds(files, descriptor, edit.expected_header)
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
    shared: int | None,
    progress: Callable[[int, int], None],
) -> None:
    """Fill a new file with the patched one: from byte `shared` of the old on in its blocks.

    None: it is a clone of the old.
    """
    done = 0

    def advance(size: int) -> None:
        nonlocal done
        done += size
        progress(done, patch.size_after)

    growth, behind = patch.growth, len(patch.old_front)
    files.write(target, 0, patch.new_front)
    advance(len(patch.new_front))
    if shared is None:
        advance(patch.size - behind)
    else:
        files.copy_range(source, behind, target, behind + growth, shared - behind, advance)
        if shared < patch.size:
            files.share_range(source, shared, target, shared + growth, patch.size - shared)
            advance(patch.size - shared)
    for span in patch.spans:
        files.write(target, span.offset + growth, span.new)
    recovery.write_tail(files, target, patch)


@contextmanager
def _parts_copied(
    files: FileSystem,
    copies: Mapping[Path, Path],
    output: Path,
    *,
    share: bool,
    replace: bool,
    progress: Callable[[int, int], None],
) -> Iterator[None]:
    """Copy the other parts of a split model as they are; nothing new stays when the rest fails."""
    made: list[Path] = []
    try:
        for source, target in copies.items():
            made += () if replace and target.exists() else (target,)
            _copy(files, source, target, share=share, replace=replace, progress=progress)
        if copies:
            made += () if replace and output.exists() else (output,)
        yield
    except (OSError, EditError, KeyboardInterrupt) as error:
        if isinstance(error, EditError) and error.code == "output_exists":
            made = made[:-1]  # the last one is somebody else's
        for target in made:
            files.discard(target)
        raise


def _copy(
    files: FileSystem,
    path: Path,
    target: Path,
    *,
    share: bool,
    replace: bool,
    progress: Callable[[int, int], None],
) -> None:
    source = files.open_for_reading(path)
    try:
        front = files.read(source, 0, FIXED_SIZE)
        shares = share and strategies.sharing(files, source, target.parent).clone
        edit = Edit(
            patch=Patch(size=files.size(source), old_front=front, new_front=front),
            strategy=Strategy.REFLINK if shares else Strategy.COPY,
            output=target,
            block=DEFAULT_BLOCK,
            expected_header=front,
        )
        _write_new(files, source, path, edit, replace=replace, progress=progress)
    finally:
        files.close(source)


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
