"""What ggufext asks of an operating system; where one cannot do or tell something, it says so."""

from __future__ import annotations

import errno
import os
import subprocess
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, nullcontext
from typing import IO, TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


class System(ABC):
    """One operating system.

    Calls that change or read files raise OSError; they may do less than asked where that is said.

    Attributes
    ----------
    make_writable : str
        Command that makes a file writable for its owner; ``{path}`` is the file.
    apart : mapping of str to object
        What `subprocess.Popen` is told of a program that a Ctrl-C here must not reach.
    """

    make_writable: str
    apart: ClassVar[Mapping[str, Any]]

    @abstractmethod
    def quote(self, text: str) -> str:
        """A text as one word of the shell."""

    # Files.

    @abstractmethod
    def open_for_reading(self, path: Path) -> int:
        """Descriptor of a file."""

    @abstractmethod
    def open_for_editing(self, path: Path) -> int:
        """Descriptor of a file for reading and writing, as its sole user if that can be had."""

    @abstractmethod
    def open_for_appending(self, path: Path) -> int:
        """Descriptor of a file that grows at its end, made where there is none."""

    @abstractmethod
    def create(self, path: Path, mode: int) -> int:
        """Descriptor of a file that must not exist yet, for reading and writing."""

    def create_nameless(self, folder: Path) -> int:
        """Descriptor of a new file that has no name and is gone when it is closed."""
        raise _unsupported()

    @abstractmethod
    def read_at(self, descriptor: int, size: int, offset: int) -> bytes:
        """Up to `size` bytes at `offset`; the descriptor's position stays."""

    @abstractmethod
    def write_at(self, descriptor: int, data: bytes | memoryview, offset: int) -> int:
        """Write at `offset`; how many bytes were written."""

    def sync(self, descriptor: int) -> None:
        """Force a file's data and size to the disk."""
        os.fsync(descriptor)

    def folder_descriptor(self, folder: Path) -> int | None:
        """Descriptor of a folder, to sync its entries; None where the system has no such sync."""
        return None

    @abstractmethod
    def replace(self, source: Path, target: Path) -> None:
        """Give `source` the name `target` at once, although this process may have both open."""

    def keep_owner(self, status: os.stat_result, target: Path) -> None:
        """Give a file the owner and group of another, as far as that is allowed."""

    def insert_range(self, descriptor: int, offset: int, length: int) -> None:
        """Shift everything from `offset` on by `length` bytes, leaving a hole."""
        raise _unsupported()

    def collapse_range(self, descriptor: int, offset: int, length: int) -> None:
        """Take `length` bytes at `offset` out, shifting the rest down."""
        raise _unsupported()

    def share_range(
        self, source: int, source_offset: int, target: int, target_offset: int, size: int
    ) -> None:
        """Let a range of `target` lie in the same blocks as one of `source`."""
        raise _unsupported()

    def clone(self, source: int, target: Path) -> None:
        """Make a new file that shares all blocks of an open one."""
        raise _unsupported()

    def holes(self, descriptor: int, size: int) -> tuple[tuple[int, int], ...]:
        """(start, end) of each hole of a file of `size` bytes; the file's end counts as no hole."""
        return ()

    @abstractmethod
    def lock(self, descriptor: int) -> bool:
        """Take the lock that two runs of ggufext compete for; False when it is taken."""

    def sole_use(self, descriptor: int) -> AbstractContextManager[int]:
        """Be the only user of a file that was opened for editing.

        Returns
        -------
        context manager of int
            0 where nobody else has it open, else the errno that says why not: EAGAIN when someone
            has the file open or mapped, another one when nobody can tell.
        """
        return nullcontext(errno.EINVAL)

    def file_system_type(self, path: Path) -> str:
        """Name of the file system that holds a path, ``""`` where it cannot be told."""
        return ""

    def block_size(self, path: Path) -> int:
        """Bytes of a block of the file system that holds a path."""
        return 4096

    def why_unchangeable(self, path: Path) -> tuple[str, str] | None:
        """What keeps everybody from changing a file or the files of a folder, and what ends that.

        ``{path}`` stands for the path as a word of the shell; None: nothing does.
        """
        return None

    def process_user(self) -> int | None:
        """Number of the user of this process; None where files have no owner by number."""
        return None

    # Processes.

    def start_apart(
        self,
        command: Sequence[str],
        *,
        stdin: int | IO[bytes],
        stdout: int | IO[bytes] | None = None,
        stderr: int | IO[bytes] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start a program that a Ctrl-C here does not reach; see `end_with_children`."""
        return subprocess.Popen(
            command,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            env=environment,
            **self.apart,
        )

    @abstractmethod
    def end_with_children(self, process: int) -> None:
        """End at once a program that `start_apart` started, and what it started."""

    def killed_by(self, status: int) -> str | None:
        """Name of the signal that ended a process, by its exit status; None: none did."""
        return None

    def killed_for_memory(self, status: int) -> bool:
        """Whether a process ended as the system ends one when memory runs out."""
        return False

    def forbid_core_dump(self) -> None:
        """A crash is expected and reported; nobody wants gigabytes of it on disk."""

    def limit_process(self, seconds: int, memory: int) -> None:
        """Let this process take no more seconds of the processor and bytes, where that can be."""

    # The machine.

    def usable_processors(self) -> int:
        """Processors that this process may use."""
        return os.cpu_count() or 1

    def processor_name(self) -> str:
        """Name of the processor, ``""`` where nothing tells."""
        return ""

    def processor_features(self) -> frozenset[str]:
        """Instruction sets as Linux names them (``"avx2"``); empty where nothing tells."""
        return frozenset()

    def machine_memory(self) -> tuple[int, int] | None:
        """Bytes of this machine's memory, free and in all; None where nothing tells."""
        return None

    def available_memory(self) -> int:
        """Bytes that this process may still take."""
        memory = self.machine_memory()
        return memory[0] if memory else 1 << 62


def _unsupported() -> OSError:
    return OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
