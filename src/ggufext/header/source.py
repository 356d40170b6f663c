"""Where the bytes of a header can be read again, for values too large to keep."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ggufext.errors import HeaderError

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class MemorySource:
    """A header that was parsed from memory."""

    data: bytes

    def read(self, start: int, end: int) -> bytes:
        """Bytes from `start` to `end`."""
        return self.data[start:end]


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

    def read(self, start: int, end: int) -> bytes:
        """Bytes from `start` to `end` of the file, opened again.

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
            return _read_range(fd, start, end)
        except OSError as error:
            raise _unreadable(error, self.path) from error
        finally:
            os.close(fd)


def open_file(path: Path) -> int:
    """Open for reading, without waiting for a pipe's other end."""
    try:
        mode = path.stat().st_mode
        if stat.S_ISREG(mode):
            return os.open(path, os.O_RDONLY)
    except OSError as error:
        raise _unreadable(error, path) from error
    found = "a directory" if stat.S_ISDIR(mode) else "a pipe or device"
    raise HeaderError(
        code="not_gguf", message=f"found {found}, expected a GGUF file: name the file", path=path
    )


def _unreadable(error: OSError, path: Path) -> HeaderError:
    return HeaderError(
        code="unreadable",
        message=f"the system says: {error.strerror}; check the name, the permissions and the disk",
        path=path,
    )


def _read_range(fd: int, start: int, end: int) -> bytes:
    """Bytes of a file from `start` to `end`, fewer where it ends before."""
    chunks = []
    while start < end:
        chunk = os.pread(fd, end - start, start)
        if not chunk:
            break
        chunks.append(chunk)
        start += len(chunk)
    return b"".join(chunks)
