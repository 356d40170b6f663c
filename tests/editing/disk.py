"""Doubles of the file operations: they stop, tear or fail at a chosen operation."""

from __future__ import annotations

import errno
import os
import random
from typing import TYPE_CHECKING, Any

from ggufext.opened.files import FileSystem, SyncError

if TYPE_CHECKING:
    from pathlib import Path

#: The operations that change something on the disk.
CHANGES = (
    "create",
    "clone",
    "write",
    "sync",
    "sync_folder",
    "truncate",
    "insert_range",
    "collapse_range",
    "share_range",
    "rename",
    "remove",
)


class PowerFailure(BaseException):
    """The process ends here, with nothing cleaned up."""


class RecordingDisk(FileSystem):
    """Counts the operations that change something."""

    def __init__(self) -> None:
        self.done: list[str] = []

    def _do(self, name: str, *args: Any) -> Any:
        result = getattr(FileSystem, name)(self, *args)
        self.done.append(name)
        return result


class StoppingDisk(RecordingDisk):
    """Ends the process after a number of operations; the last write may be torn."""

    def __init__(self, after: int, *, tear: bool = False) -> None:
        super().__init__()
        self.after = after
        self.tear = tear

    def _do(self, name: str, *args: Any) -> Any:
        if len(self.done) >= self.after:
            raise PowerFailure
        if self.tear and name == "write" and len(self.done) == self.after - 1:
            descriptor, offset, data = args
            super()._do(name, descriptor, offset, data[: len(data) // 2])
            raise PowerFailure
        result = super()._do(name, *args)
        if len(self.done) == self.after:
            if name in {"create", "clone"}:
                self.close(result)
            raise PowerFailure
        return result


class FailingDisk(RecordingDisk):
    """Refuses one operation with an error of the system; everything else works."""

    def __init__(self, at: int, code: int = errno.EIO) -> None:
        super().__init__()
        self.at = at
        self.code = code
        self.refused: str | None = None

    def _do(self, name: str, *args: Any) -> Any:
        if len(self.done) == self.at and self.refused is None:
            self.refused = name
            error = SyncError if name in {"sync", "sync_folder"} else OSError
            raise error(self.code, os.strerror(self.code))
        return super()._do(name, *args)


class LosingDisk(RecordingDisk):
    """Loses the power after a number of operations, and with it what no sync had confirmed.

    Of a file's writes any sectors may have reached the disk. Moving its data flushes what was
    written before. Changes of names reach the disk in their order.

    Parameters
    ----------
    after : int
        Operations until the power fails.
    hidden : Path
        Folder for files without a name, on the same disk.
    seed : int
        Chooses what is lost; 0 loses everything.
    skipping : int, optional
        Number of the sync that is left out.
    """

    def __init__(self, after: int, hidden: Path, seed: int, *, skipping: int | None = None) -> None:
        super().__init__()
        self.after = after
        self.hidden = hidden
        self.random = random.Random(seed)
        self.keeps = 0.0 if seed == 0 else 0.5
        self.skipping = skipping
        self.syncs = 0
        self.durable: dict[int, bytes] = {}
        self.pending: dict[int, list[tuple[int, str, Any]]] = {}
        self.names: list[tuple[Path, Path]] = []
        self.closed: list[int] = []

    def close(self, descriptor: int) -> None:
        if self.pending.get(os.fstat(descriptor).st_ino) and len(self.done) < self.after:
            # What was written can still be lost.
            duplicate = os.dup(descriptor)
            self.closed.append(duplicate)
            changes = self.pending[os.fstat(descriptor).st_ino]
            changes[:] = [(duplicate, *change[1:]) for change in changes]
        super().close(descriptor)

    def _do(self, name: str, *args: Any) -> Any:
        result = self._perform(name, args)
        self.done.append(name)
        if len(self.done) == self.after:
            self._lose()
            for descriptor in self.closed:
                super().close(descriptor)
            if name in {"create", "clone"}:
                self.close(result)
            raise PowerFailure
        return result

    def _perform(self, name: str, args: tuple[Any, ...]) -> Any:
        if name in {"sync", "sync_folder"}:
            self.syncs += 1
            if self.syncs - 1 == self.skipping:
                return None
            if name == "sync":
                self.pending.pop(os.fstat(args[0]).st_ino, None)
            else:
                self.names.clear()
        elif name in {"write", "truncate", "insert_range", "collapse_range"}:
            descriptor, *rest = args
            inode = os.fstat(descriptor).st_ino
            if not self.pending.get(inode):
                self.durable[inode] = self.read(descriptor, 0, self.size(descriptor))
            self.pending.setdefault(inode, []).append((descriptor, name, rest))
        elif name in {"create", "clone"}:
            self.names.append((args[-1] if name == "clone" else args[0], self._hidden()))
        elif name == "remove":
            return self._move(args[0], self._hidden())
        elif name == "rename":
            if args[1].exists():
                self._move(args[1], self._hidden())
            return self._move(*args)
        return getattr(FileSystem, name)(self, *args)

    def _hidden(self) -> Path:
        return self.hidden / str(len(self.names))

    def _move(self, source: Path, target: Path) -> None:
        source.rename(target)
        self.names.append((target, source))

    def _lose(self) -> None:
        """Leave what a disk may hold after the power failed."""
        kept = self.random.randint(0, len(self.names)) if self.keeps else 0
        for now, before in reversed(self.names[kept:]):
            now.rename(before)
        for inode, changes in self.pending.items():
            descriptor = changes[0][0]
            content = self._content(self.durable[inode], [change[1:] for change in changes])
            os.ftruncate(descriptor, len(content))
            os.pwrite(descriptor, content, 0)

    def _content(self, durable: bytes, changes: list[tuple[str, Any]]) -> bytes:
        content = bytearray(durable)
        moves = [i for i, (name, _) in enumerate(changes) if name.endswith("_range")]
        moved = next((i for i in reversed(moves) if self.random.random() < self.keeps), -1)
        for number, (name, args) in enumerate(changes):
            if moves and number == next((m for m in moves if m > moved), None):
                break  # what follows a move that was lost is lost too
            certain = number <= moved
            if name == "write":
                for at in range(0, len(args[1]), 512):
                    if certain or self.random.random() < self.keeps:
                        start, sector = args[0] + at, args[1][at : at + 512]
                        content.extend(bytes(max(0, start - len(content))))
                        content[start : start + len(sector)] = sector
            elif name == "truncate":
                if certain or self.random.random() < self.keeps:
                    content[args[0] :] = b""
            elif name == "insert_range":
                content[args[0] : args[0]] = bytes(args[1])
            else:
                content[args[0] : args[0] + args[1]] = b""
        return bytes(content)


class InterruptedDisk(RecordingDisk):
    """The user presses Ctrl-C while one operation runs; it comes to its end."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.at = at

    def _do(self, name: str, *args: Any) -> Any:
        result = super()._do(name, *args)
        if len(self.done) == self.at:
            raise KeyboardInterrupt
        return result


def _counted(name: str) -> Any:
    def operation(self: RecordingDisk, *args: Any) -> Any:
        return self._do(name, *args)

    return operation


for _name in CHANGES:
    setattr(RecordingDisk, _name, _counted(_name))
