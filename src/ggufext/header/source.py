"""Where the bytes of a header can be read again, for values too large to keep."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ggufext import _core
from ggufext.errors import HeaderError, of_system

if TYPE_CHECKING:
    from pathlib import Path

    from ggufext.header.header import KeyValue, Value


@dataclass(frozen=True, slots=True)
class MemorySource:
    """A header that was parsed from memory."""

    data: bytes

    def value(self, entry: KeyValue) -> Value:
        """Value of a key."""
        return _core.decode_value(
            self.data[entry.value_start : entry.end],
            value_type=entry.type,
            element_type=entry.element_type,
            count=entry.count,
        )


@dataclass(frozen=True, slots=True)
class FileSource:
    """A file as it was when its header was read."""

    path: Path | None
    device: int
    inode: int
    size: int
    mtime_ns: int

    @classmethod
    def of(cls, fd: int, path: Path | None) -> FileSource:
        """Describe the file behind a descriptor."""
        status = os.fstat(fd)
        return cls(path, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)

    def value(self, entry: KeyValue) -> Value:
        """Value of a key, from the file opened again.

        Raises
        ------
        HeaderError
            ``changed_meanwhile``, ``no_path`` or ``unreadable``, as `Header.value` says.
        """
        if self.path is None:
            raise HeaderError(
                code="no_path",
                message="this value is too large to be kept, and the file that holds it has no "
                "name here: read the header with its path",
            )
        fd = open_file(self.path)
        try:
            if FileSource.of(fd, self.path) != self:
                raise HeaderError(
                    code="changed_meanwhile",
                    message="the file is not the one whose header was read: read it again when "
                    "nothing writes to it",
                )
            return _core.read_value(
                fd,
                start=entry.value_start,
                end=entry.end,
                value_type=entry.type,
                element_type=entry.element_type,
                count=entry.count,
            )
        finally:
            os.close(fd)


def open_file(path: Path) -> int:
    """Open for reading, without waiting for a pipe's other end.

    Raises
    ------
    HeaderError
        As `check_regular`.
    """
    check_regular(path)
    try:
        return os.open(path, os.O_RDONLY)
    except OSError as error:
        raise _unreadable(error, path) from error


def check_regular(path: Path) -> None:
    """Refuse what is no file: opening a pipe would wait for ever.

    Raises
    ------
    HeaderError
        ``unreadable``, or ``not_gguf`` for folders, pipes and devices.
    """
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise _unreadable(error, path) from error
    except ValueError as error:  # a zero byte, half a character
        raise HeaderError(
            code="unreadable", message=f"no file can have this name ({error})", path=path
        ) from error
    if stat.S_ISREG(mode):
        return
    found = "a directory" if stat.S_ISDIR(mode) else "a pipe or device"
    raise HeaderError(
        code="not_gguf", message=f"found {found}, expected a GGUF file: name the file", path=path
    )


def _unreadable(error: OSError, path: Path) -> HeaderError:
    return HeaderError(code="unreadable", message=of_system(error).message, path=path)
