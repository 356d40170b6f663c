"""Small files beside a model: the journal, and an undo record for which its file has no room."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from ggufext.errors import JournalError

if TYPE_CHECKING:
    from pathlib import Path

    from ggufext.opened.files import FileSystem


def draft_of(target: Path) -> Path:
    """Where a small file is written before it takes its name."""
    return target.with_name(target.name + ".new")


def write(files: FileSystem, target: Path, content: bytes) -> None:
    """Write a small file completely and durably, or not at all."""
    stage(files, target, content)
    publish(files, target)


def stage(files: FileSystem, target: Path, content: bytes) -> None:
    """Write a small file's draft completely and durably, or not at all."""
    draft = draft_of(target)
    if os.path.lexists(draft):
        # Left by a run that was cut off before it had changed anything.
        files.remove(draft)
    try:
        descriptor = files.create(draft)
        try:
            files.write(descriptor, 0, content)
            files.sync(descriptor)
        finally:
            files.close(descriptor)
    except (OSError, KeyboardInterrupt):
        files.discard(draft)
        raise


def publish(files: FileSystem, target: Path) -> None:
    """Give a draft its name, durably."""
    try:
        files.rename(draft_of(target), target)
    except (OSError, KeyboardInterrupt):
        files.discard(draft_of(target))
        raise
    files.sync_folder(target.parent)


def remove(files: FileSystem, target: Path) -> None:
    """Take a small file away, durably; nothing where there is none."""
    if os.path.lexists(target):
        files.remove(target)
        files.sync_folder(target.parent)


def read(files: FileSystem, place: Path, model: Path, largest: int) -> bytes | None:
    """Content of a small file beside a model, None where there is none.

    Parameters
    ----------
    largest : int
        Bytes from which on it is not taken for real: ``b""`` then.

    Raises
    ------
    JournalError
        ``foreign_owner``: somebody else could have put it there.
    """
    if not place.is_file() or place.is_symlink():
        return None
    descriptor = files.open_for_reading(place)
    try:
        _check_owner(os.fstat(descriptor).st_uid, place, model)
        size = files.size(descriptor)
        return files.read(descriptor, 0, size) if size <= largest else b""
    finally:
        files.close(descriptor)


def _check_owner(owner: int, place: Path, model: Path) -> None:
    folder = place.parent.stat()
    shared = stat.S_IMODE(folder.st_mode) & (stat.S_IWOTH | stat.S_ISVTX)
    # Who owns the model could have written anything into it, and root everywhere.
    if not shared or owner in {os.geteuid(), model.stat().st_uid, 0}:
        return
    raise JournalError(
        code="foreign_owner",
        path=place,
        message=f"belongs to user {owner}, who owns neither the model nor this process, in a "
        "folder that others may write to; it is not trusted and nothing was changed; have it "
        "removed, or change its owner (chown) if it is yours",
    )
