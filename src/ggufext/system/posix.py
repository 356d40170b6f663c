"""Any POSIX system: what all of them do, and for the rest that it cannot be done or told."""

from __future__ import annotations

import errno
import os
import shlex
import signal
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, ClassVar

from ggufext.system.base import System

assert sys.platform != "win32"

if TYPE_CHECKING:
    from pathlib import Path


class Posix(System):
    """Any POSIX system."""

    make_writable = "chmod u+w {path}"
    apart: ClassVar = {"start_new_session": True}

    def quote(self, text: str) -> str:
        """A text as one word of the shell."""
        if text.isprintable():
            return shlex.quote(text)
        octal = "".join(f"\\{byte:03o}" for byte in os.fsencode(text))
        return f"\"$(printf '{octal}')\""

    def open_for_reading(self, path: Path) -> int:
        """Descriptor of a file."""
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def open_for_editing(self, path: Path) -> int:
        """Descriptor of a file for reading and writing; never through a symbolic link."""
        return os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)

    def open_for_appending(self, path: Path) -> int:
        """Descriptor of a file that grows at its end, made where there is none."""
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)

    def create(self, path: Path, mode: int) -> int:
        """Descriptor of a new file, for reading and writing."""
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(path, flags, mode)

    def read_at(self, descriptor: int, size: int, offset: int) -> bytes:
        """Up to `size` bytes at `offset`; the position stays."""
        return os.pread(descriptor, size, offset)

    def write_at(self, descriptor: int, data: bytes | memoryview, offset: int) -> int:
        """Write at `offset`; how many bytes were written."""
        return os.pwrite(descriptor, data, offset)

    def folder_descriptor(self, folder: Path) -> int | None:
        """Descriptor of a folder, to sync its entries; None where they need no sync."""
        return os.open(folder, os.O_RDONLY | os.O_DIRECTORY)

    def replace(self, source: Path, target: Path) -> None:
        """Give `source` the name `target` at once, whoever has either open."""
        source.replace(target)

    def keep_owner(self, status: os.stat_result, target: Path) -> None:
        """Give a file the owner and group of another, as far as that is allowed."""
        for owner in (status.st_uid, -1):
            with suppress(PermissionError):
                os.chown(target, owner, status.st_gid)
                break

    def holes(self, descriptor: int, size: int) -> tuple[tuple[int, int], ...]:
        """(start, end) of each hole of a file of `size` bytes; the file's end counts as no hole."""
        position, found = 0, []
        while position < size:
            start = os.lseek(descriptor, position, os.SEEK_HOLE)
            if start >= size:
                break
            try:
                end = os.lseek(descriptor, start, os.SEEK_DATA)
            except OSError as error:
                if error.errno != errno.ENXIO:
                    raise
                end = size
            found.append((start, end))
            position = end
        return tuple(found)

    def lock(self, descriptor: int) -> bool:
        """Take the lock that two runs of ggufext compete for; False when it is taken."""
        import fcntl

        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def block_size(self, path: Path) -> int:
        """Bytes of a block of the file system that holds a path."""
        return os.statvfs(path).f_bsize

    def why_unchangeable(self, path: Path) -> tuple[str, str] | None:
        """What keeps everybody from changing a file or the files of a folder, and what ends that.

        ``{path}`` stands for the path as a word of the shell; None: nothing does.
        """
        if os.statvfs(path).f_flag & os.ST_RDONLY:
            return "lies on a file system that is mounted read-only", "mount it for writing"
        return None

    def process_user(self) -> int | None:
        """Number of the user of this process; None where files have no owner by number."""
        return os.geteuid()

    def end_with_children(self, process: int) -> None:
        """End at once a program that `start_apart` started, and what it started."""
        with suppress(ProcessLookupError):
            os.killpg(process, signal.SIGKILL)

    def killed_by(self, status: int) -> str | None:
        """Name of the signal that ended a process, by its exit status; None: it ended by itself."""
        if status >= 0:
            return None
        try:
            return signal.Signals(-status).name
        except ValueError:
            return f"signal {-status}"

    def killed_for_memory(self, status: int) -> bool:
        """Whether a process ended as the kernel ends one when memory runs out."""
        return status == -signal.SIGKILL

    def forbid_core_dump(self) -> None:
        """A crash is expected and reported; nobody wants gigabytes of it on disk."""
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    def limit_process(self, seconds: int, memory: int) -> None:
        """Let this process take no more than seconds of the processor and bytes of memory."""
        import resource

        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
        self.forbid_core_dump()
