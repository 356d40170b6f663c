"""The operations on files that editing is made of: the only module that writes.

Every call is complete or raises OSError: short reads and writes are continued, interrupted calls
repeated. Opening what is no file raises HeaderError. Small files beside a model (the journal, an
undo record for which its file has no room) are written whole or not at all. Tests put a recording
and interrupting double in the place of `FileSystem`.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

from ggufext.errors import JournalError
from ggufext.header.header import check_regular
from ggufext.system import system

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path

#: Bytes copied between two progress reports.
_COPY_CHUNK = 16 * 1024 * 1024


class SyncError(OSError):
    """The disk did not confirm what was written; asking again would prove nothing."""


class FileSystem:
    """The real thing."""

    def open_for_reading(self, path: Path) -> int:
        """Open a regular file for reading; the caller closes the descriptor."""
        _refuse_special(path)
        return system.open_for_reading(path)

    def open_for_editing(self, path: Path) -> int:
        """Open a file for reading and writing; never through a symbolic link."""
        _refuse_special(path)
        return system.open_for_editing(path)

    def create(self, path: Path, mode: int = 0o600) -> int:
        """Create a file that must not exist yet, for reading and writing."""
        return system.create(path, mode)

    def create_nameless(self, folder: Path) -> int:
        """Create a file that has no name and is gone when it is closed (Linux)."""
        return system.create_nameless(folder)

    def close(self, descriptor: int) -> None:
        """Close a descriptor; locks and leases end with it."""
        os.close(descriptor)

    def size(self, descriptor: int) -> int:
        """Size in bytes."""
        return os.fstat(descriptor).st_size

    def read(self, descriptor: int, offset: int, size: int) -> bytes:
        """Read `size` bytes from `offset`; fewer only at the end of the file."""
        # Memory is taken for what is there, not for what an untrusted number asks for.
        size = min(size, self.size(descriptor) - offset)
        parts = []
        while size > 0:
            part = system.read_at(descriptor, size, offset)
            if not part:
                break
            parts.append(part)
            offset += len(part)
            size -= len(part)
        return b"".join(parts)

    def write(self, descriptor: int, offset: int, data: bytes) -> None:
        """Write all of `data` at `offset`."""
        view = memoryview(data)
        while view:
            written = system.write_at(descriptor, view, offset)
            offset += written
            view = view[written:]

    def sync(self, descriptor: int) -> None:
        """Force a file's data and size to the disk.

        Raises
        ------
        SyncError
            Must not be answered by another try: the kernel may have dropped the data.
        """
        try:
            system.sync(descriptor)
        except OSError as error:
            raise SyncError(error.errno, error.strerror) from error

    def sync_folder(self, folder: Path) -> None:
        """Force a folder's entries to the disk; raises as `sync` does."""
        descriptor = system.folder_descriptor(folder)
        if descriptor is None:
            return
        try:
            self.sync(descriptor)
        finally:
            os.close(descriptor)

    def truncate(self, descriptor: int, size: int) -> None:
        """Cut a file off at `size` bytes."""
        os.ftruncate(descriptor, size)

    def insert_range(self, descriptor: int, offset: int, length: int) -> None:
        """Shift everything from `offset` on by `length` bytes, leaving a hole (Linux)."""
        system.insert_range(descriptor, offset, length)

    def collapse_range(self, descriptor: int, offset: int, length: int) -> None:
        """Take `length` bytes at `offset` out, shifting the rest down (Linux)."""
        system.collapse_range(descriptor, offset, length)

    def share_range(
        self, source: int, source_offset: int, target: int, target_offset: int, size: int
    ) -> None:
        """Let a range of `target` lie in the same blocks as one of `source` (Linux).

        Offsets are multiples of a block; so is the size, unless the range ends with `source`.
        Either file may change afterwards without the other.
        """
        system.share_range(source, source_offset, target, target_offset, size)

    def clone(self, source: int, path: Path) -> int:
        """Create a file that shares all blocks of an open one; it must not exist yet.

        Either file may change afterwards without the other.
        """
        system.clone(source, path)
        return self.open_for_editing(path)

    def rename(self, source: Path, target: Path) -> None:
        """Put `source` in the place of `target`, at once."""
        system.replace(source, target)

    def remove(self, path: Path) -> None:
        """Remove a file."""
        path.unlink()

    def discard(self, path: Path) -> None:
        """Remove a file that is no longer needed, if it is there."""
        path.unlink(missing_ok=True)

    def keep_attributes(self, source: Path, target: Path) -> None:
        """Give `target` mode, extended attributes, ACL and, where allowed, owner of `source`.

        The times are those of now.
        """
        import shutil  # it loads every archive format

        status = source.stat()
        # First, since a new owner clears bits of the mode.
        system.keep_owner(status, target)
        shutil.copystat(source, target)
        os.utime(target)

    def copy_range(
        self,
        source: int,
        source_offset: int,
        target: int,
        target_offset: int,
        size: int,
        progress: Callable[[int], None],
    ) -> None:
        """Copy `size` bytes between files, reporting the bytes of each chunk."""
        while size > 0:
            data = self.read(source, source_offset, min(size, _COPY_CHUNK))
            if not data:
                raise OSError(errno.EIO, "the file became shorter while it was read")
            self.write(target, target_offset, data)
            progress(len(data))
            source_offset += len(data)
            target_offset += len(data)
            size -= len(data)

    def holes(self, descriptor: int) -> tuple[tuple[int, int], ...]:
        """(start, end) of each hole, in bytes; the file's end counts as no hole."""
        return system.holes(descriptor, self.size(descriptor))

    def lock(self, descriptor: int) -> bool:
        """Take the advisory lock that two runs of ggufext compete for; False when it is taken."""
        return system.lock(descriptor)

    def lease(self, descriptor: int) -> AbstractContextManager[int]:
        """Be the only user of a file, and stay it where the system can keep others waiting.

        Returns
        -------
        context manager of int
            0 where nobody else has the file, else the errno that says why not: EAGAIN when someone
            else has it open or mapped; another one when exclusivity cannot be shown here.
        """
        return system.sole_use(descriptor)

    def stage(self, target: Path, content: bytes) -> None:
        """Write a small file's draft completely and durably, or not at all."""
        draft = draft_of(target)
        if os.path.lexists(draft):
            # Left by a run that was cut off before it had changed anything.
            self.remove(draft)
        try:
            descriptor = self.create(draft)
            try:
                self.write(descriptor, 0, content)
                self.sync(descriptor)
            finally:
                self.close(descriptor)
        except (OSError, KeyboardInterrupt):
            self.discard(draft)
            raise

    def publish(self, target: Path) -> None:
        """Give a draft its name, durably."""
        try:
            self.rename(draft_of(target), target)
        except (OSError, KeyboardInterrupt):
            self.discard(draft_of(target))
            raise
        self.sync_folder(target.parent)

    def take_away(self, target: Path) -> None:
        """Remove a small file, durably; nothing where there is none."""
        if os.path.lexists(target):
            self.remove(target)
            self.sync_folder(target.parent)

    def read_beside(self, place: Path, model: Path, largest: int) -> bytes | None:
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
        descriptor = self.open_for_reading(place)
        try:
            _check_owner(os.fstat(descriptor).st_uid, place, model)
            size = self.size(descriptor)
            return self.read(descriptor, 0, size) if size <= largest else b""
        finally:
            self.close(descriptor)


def why_not_writable(path: Path) -> str | None:
    """Why no file can be made at a path, or replaced, and what to do; None where it can."""
    from tempfile import TemporaryFile

    folder = os.path.dirname(os.path.realpath(path))  # noqa: PTH120 (follows a link at its end)
    if not os.path.isdir(folder):  # noqa: PTH112
        return "its folder does not exist; create it first"
    why = "is a folder" if path.is_dir() else None
    try:
        TemporaryFile(dir=folder).close()  # permissions alone do not tell
    except OSError as error:
        why = why or f"its folder takes no new files ({error.strerror})"
    return f"{why}; name a file in another place" if why else None


def draft_of(target: Path) -> Path:
    """Where a small file is written before it takes its name."""
    return target.with_name(target.name + ".new")


def _refuse_special(path: Path) -> None:
    # A missing file is the system's to name.
    if path.exists():
        check_regular(path)


def _check_owner(owner: int, place: Path, model: Path) -> None:
    folder = place.parent.stat()
    shared = stat.S_IMODE(folder.st_mode) & (stat.S_IWOTH | stat.S_ISVTX)
    # Who owns the model could have written anything into it, and root everywhere.
    user = system.process_user()
    if user is None or not shared or owner in {user, model.stat().st_uid, 0}:
        return
    raise JournalError(
        code="foreign_owner",
        path=place,
        message=f"belongs to user {owner}, who owns neither the model nor this process, in a "
        "folder that others may write to; it is not trusted and nothing was changed; have it "
        "removed, or change its owner (chown) if it is yours",
    )
