"""Doubles of the file operations: they stop, tear or fail at a chosen operation."""

from __future__ import annotations

import errno
import os
from typing import Any

from ggufext.editing.files import FileSystem, SyncError

#: The operations that change something on the disk.
CHANGES = (
    "create",
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
            if name == "create":
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
