"""The ways of putting a patch into a file, and which of them a place allows."""

from __future__ import annotations

import errno
import os
import sys
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from ggufext.editing.files import FileSystem

#: File systems on which inserting a range was tried.
_INSERTING = frozenset({"ext4", "xfs"})

#: Larger ranges to try where a block is not enough (ext4 with bigalloc moves whole clusters).
_LARGER_BLOCKS = (64 * 1024, 256 * 1024, 1024 * 1024)

#: Bytes by whose multiples a header grows where the file system sets no other.
DEFAULT_BLOCK = 4096


class Strategy(Enum):
    """How a patch gets into a file."""

    OVERWRITE = "overwrite"
    """Changed bytes only: everything fits where it stands."""
    INSERT = "insert"
    """The file system shifts the data; no tensor byte is read or written."""
    COPY = "copy"
    """A new file beside the old one, then renamed over it."""


def file_system_type(path: Path) -> str:
    """Name of the file system that holds a path, ``""`` where it cannot be told."""
    if not sys.platform.startswith("linux"):
        return ""
    device = path.stat().st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as mounts:  # noqa: PTH123
        for line in mounts:
            left, _, right = line.partition(" - ")
            if left.split()[2] == wanted:
                return right.split()[0]
    return ""


def insert_block(files: FileSystem, folder: Path) -> int | None:
    """Bytes in whose multiples a file in this folder can grow at its start; None: it cannot.

    Tried on a nameless file, since a file system's name does not say everything.
    """
    if file_system_type(folder) not in _INSERTING:
        return None
    block = os.statvfs(folder).f_bsize
    descriptor = files.create_nameless(folder)
    try:
        for size in (block, *_LARGER_BLOCKS):
            try:
                files.truncate(descriptor, 0)
                files.write(descriptor, 0, b"x" * size)
                files.insert_range(descriptor, 0, size)
                files.collapse_range(descriptor, 0, size)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    return None
            else:
                return size
        return None
    finally:
        files.close(descriptor)


def likely_strategy(path: Path) -> Strategy:
    """The strategy that a first edit would probably take; writes nothing."""
    inserting = file_system_type(path) in _INSERTING
    return Strategy.INSERT if inserting else Strategy.COPY
