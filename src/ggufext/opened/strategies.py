"""The ways of putting a patch into a file, and which of them a place allows."""

from __future__ import annotations

import errno
import secrets
from contextlib import suppress
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from ggufext.system import system

if TYPE_CHECKING:
    from pathlib import Path

    from ggufext.opened.files import FileSystem

#: File systems on which inserting a range was tried.
_INSERTING = frozenset({"ext4", "xfs"})

#: File systems on which sharing blocks between files was tried.
_SHARING = frozenset({"xfs", "btrfs"})

#: Larger ranges to try where a block is not enough (ext4 with bigalloc moves whole clusters).
_LARGER_BLOCKS = (64 * 1024, 256 * 1024, 1024 * 1024)

#: Bytes by whose multiples a header grows where the file system sets no other.
DEFAULT_BLOCK = 4096


class Strategy(Enum):
    """How a patch gets into a file."""

    OVERWRITE = "overwrite"
    """Changed bytes only: everything fits where it stands."""
    INSERT = "insert"
    """The file system shifts the data; none of it is written, and samples of it are read."""
    REFLINK = "reflink"
    """A new file that shares the data's blocks with the old one, then renamed over it."""
    COPY = "copy"
    """A new file beside the old one, then renamed over it."""


class Blocks(NamedTuple):
    """Bytes in whose multiples the file system can shift the data of a file; None: it cannot.

    Attributes
    ----------
    insert : int or None
        By inserting a range at the start of the file.
    share : int or None
        On the way into a new file that shares its blocks.
    clone : bool
        Whether a new file can share all blocks of one whose data does not move.
    """

    insert: int | None = None
    share: int | None = None
    clone: bool = False

    @property
    def block(self) -> int:
        """Bytes in whose multiples a header grows, whichever way is taken."""
        return max(DEFAULT_BLOCK, self.insert or 0, self.share or 0)

    def shares(self, growth: int) -> bool:
        """Whether a new file can share the data of one whose header grows by `growth` bytes."""
        if not growth:
            return self.clone
        return self.share is not None and growth % self.share == 0


def blocks_for(files: FileSystem, descriptor: int, folder: Path) -> Blocks:
    """Those of an open file and a folder, tried there on nameless files.

    Parameters
    ----------
    descriptor : int
        Of the file, open for reading.
    folder : Path
        Where the result goes.
    """
    return sharing(files, descriptor, folder)._replace(insert=insert_block(files, folder))


def insert_block(files: FileSystem, folder: Path) -> int | None:
    """Bytes in whose multiples a file in this folder can grow at its start; None: it cannot.

    Tried on a nameless file, since a file system's name does not say everything.
    """
    if system.file_system_type(folder) not in _INSERTING:
        return None
    block = system.block_size(folder)
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


def share_block(files: FileSystem, descriptor: int, folder: Path) -> int | None:
    """Bytes in whose multiples a new file here can share a file's blocks; None: it cannot.

    Tried with the first block of the very file: its flags and its device count too.

    Parameters
    ----------
    descriptor : int
        Of the file, open for reading.
    """
    if system.file_system_type(folder) not in _SHARING:
        return None
    block = system.block_size(folder)
    probe = files.create_nameless(folder)
    try:
        files.share_range(descriptor, 0, probe, block, min(block, files.size(descriptor)))
    except OSError:
        return None
    finally:
        files.close(probe)
    return block


def sharing(files: FileSystem, descriptor: int, folder: Path) -> Blocks:
    """How new files in a folder can share the blocks of an open one; parameters as `blocks_for`."""
    share = share_block(files, descriptor, folder)
    return Blocks(share=share, clone=share is not None or _clones(files, descriptor, folder))


def _clones(files: FileSystem, descriptor: int, folder: Path) -> bool:
    """Whether the very file can be cloned into a folder, tried where no name tells."""
    if system.file_system_type(folder):
        return False
    probe = folder / f".ggufext-probe.{secrets.token_hex(3)}"
    try:
        files.close(files.clone(descriptor, probe))
        files.discard(probe)
    except OSError:
        with suppress(OSError):  # which a folder that takes no files raises again
            files.discard(probe)
        return False
    return True


def likely_strategy(path: Path, *, has_room: bool) -> Strategy:
    """The strategy that the next edit would probably take; writes nothing.

    Parameters
    ----------
    has_room : bool
        Whether the header holds filler, as after an edit of ours.
    """
    if has_room:
        return Strategy.OVERWRITE
    kind = system.file_system_type(path)
    if kind in _SHARING:
        return Strategy.REFLINK
    return Strategy.INSERT if kind in _INSERTING else Strategy.COPY
