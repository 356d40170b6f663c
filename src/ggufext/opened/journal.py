"""The journal: everything that recovery needs, on disk before the first byte of a file changes.

It lies beside the file as ``model.gguf.ggufext-journal``. A journal is untrusted input: it is
believed only when its checksum is right and the file beside it looks as the journal says.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from ggufext.errors import JournalError
from ggufext.header.header import JOURNAL_SUFFIX, MAGIC, companion
from ggufext.opened.patch import Patch, Span

if TYPE_CHECKING:
    from pathlib import Path

    from ggufext.opened.files import FileSystem

_FORMAT = 3

#: Places whose bytes are remembered, to tell later how far a shift came.
_FINGERPRINT_COUNT = 16

#: Largest block of a file system taken for real, bytes.
_LARGEST_BLOCK = 16 * 1024 * 1024

#: Largest journal taken for real, bytes: two complete headers, base64.
_LARGEST = 512 * 1024 * 1024


class Direction(Enum):
    """Whether a journal's patch extends a file or takes an extension back."""

    EDIT = "edit"
    UNDO = "undo"


@dataclass(frozen=True, slots=True)
class _Fingerprint:
    """Hash of some bytes behind the front, at their place before the patch."""

    offset: int
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Journal:
    """An edit that is about to happen in place.

    Attributes
    ----------
    direction : Direction
    patch : Patch
    inode : int
        Of the file. (Its device number may change across a reboot.)
    block : int
        Bytes; places of fingerprints and shifts are multiples of it.
    fingerprints : tuple of _Fingerprint
    record_beside : str or None
        Undo record that lies beside the file after the patch; None: none does.
    """

    direction: Direction
    patch: Patch
    inode: int
    block: int
    fingerprints: tuple[_Fingerprint, ...]
    record_beside: str | None

    def encode(self) -> bytes:
        """The journal as a file's content."""
        body: dict[str, object] = {
            "format": _FORMAT,
            "direction": self.direction.value,
            "inode": self.inode,
            "block": self.block,
            "size": self.patch.size,
            "old_front": _base64(self.patch.old_front),
            "new_front": _base64(self.patch.new_front),
            "old_tail": _base64(self.patch.old_tail),
            "new_tail": _base64(self.patch.new_tail),
            "spans": [[s.offset, _base64(s.old), _base64(s.new)] for s in self.patch.spans],
            "fingerprints": [[f.offset, f.size, f.sha256] for f in self.fingerprints],
            "record_beside": self.record_beside,
        }
        return json.dumps(body | {"checksum": _checksum(body)}).encode("ascii")


def path_for(path: Path) -> Path:
    """Where the journal of a file lies."""
    return companion(path, JOURNAL_SUFFIX)


def decode(data: bytes, path: Path) -> Journal:
    """Read a journal.

    Raises
    ------
    JournalError
        ``damaged_journal``.
    """
    try:
        body = json.loads(data)
        checksum = body.pop("checksum")
        if checksum != _checksum(body) or body["format"] != _FORMAT:
            raise ValueError("checksum")
        journal = Journal(
            direction=Direction(body["direction"]),
            patch=Patch(
                size=body["size"],
                old_front=base64.b64decode(body["old_front"], validate=True),
                new_front=base64.b64decode(body["new_front"], validate=True),
                spans=tuple(
                    Span(
                        offset,
                        base64.b64decode(old, validate=True),
                        base64.b64decode(new, validate=True),
                    )
                    for offset, old, new in body["spans"]
                ),
                old_tail=base64.b64decode(body["old_tail"], validate=True),
                new_tail=base64.b64decode(body["new_tail"], validate=True),
            ),
            inode=body["inode"],
            block=body["block"],
            fingerprints=tuple(_Fingerprint(*f) for f in body["fingerprints"]),
            record_beside=body["record_beside"],
        )
        _check(journal)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise JournalError(
            code="damaged_journal",
            path=path,
            message="is no journal of this program, or is damaged; nothing was changed; "
            "if the model beside it loads, the journal may be removed",
        ) from None
    return journal


def _check(journal: Journal) -> None:
    """Bounds of everything that recovery would use as a number."""
    patch = journal.patch
    # Of files Windows gives numbers of 128 bits.
    if not isinstance(journal.inode, int) or not 0 <= journal.inode < 2**128:
        raise ValueError("inode")
    numbers = [patch.size, journal.block]
    numbers += [n for f in journal.fingerprints for n in (f.offset, f.size)]
    numbers += [s.offset for s in patch.spans]
    if not all(isinstance(n, int) and 0 <= n < 2**62 for n in numbers):
        raise ValueError("number")
    if len(patch.old_front) > patch.tail_start or not patch.tells_its_state:
        raise ValueError("tail")
    if min(len(patch.old_front), len(patch.new_front)) < 4:
        raise ValueError("front")
    if not 0 < journal.block <= _LARGEST_BLOCK or (
        patch.growth and abs(patch.growth) % journal.block
    ):
        raise ValueError("block")
    for span in patch.spans:
        inside = len(patch.old_front) <= span.offset <= patch.tail_start - len(span.old)
        if len(span.old) != len(span.new) or not inside:
            raise ValueError("span")
    if not isinstance(journal.record_beside, (str, type(None))):
        raise TypeError("record")
    for mark in journal.fingerprints:
        inside = len(patch.old_front) <= mark.offset <= patch.tail_start - mark.size
        if mark.size != journal.block or not inside:
            raise ValueError("fingerprint")


def fingerprints(
    files: FileSystem, descriptor: int, patch: Patch, block: int
) -> tuple[_Fingerprint, ...]:
    """Fingerprints of full blocks behind the front, the first and the last among them."""
    first = -(-max(len(patch.old_front), len(patch.new_front)) // block)
    last = patch.tail_start // block - 1
    if last < first:
        return ()
    step = max(1, (last - first) // (_FINGERPRINT_COUNT - 1))
    blocks = sorted({*range(first, last + 1, step), last})
    marks = []
    for index in blocks:
        offset = index * block
        if any(s.offset < offset + block and offset < s.offset + len(s.old) for s in patch.spans):
            continue
        marks.append(_Fingerprint(offset, block, fingerprint_at(files, descriptor, offset, block)))
    return tuple(marks)


def fingerprint_at(files: FileSystem, descriptor: int, offset: int, size: int) -> str:
    """Hash of the bytes at a place of the file as it is."""
    return hashlib.sha256(files.read(descriptor, offset, size)).hexdigest()


def write(files: FileSystem, journal: Journal, path: Path) -> None:
    """Put a journal beside `path`, complete and on disk, or not at all."""
    files.stage(path_for(path), journal.encode())
    files.publish(path_for(path))


def read(files: FileSystem, path: Path) -> Journal | None:
    """The journal beside `path`, or None.

    Raises
    ------
    JournalError
        ``damaged_journal``, ``foreign_owner``.
    """
    data = files.read_beside(path_for(path), path, _LARGEST)
    return None if data is None else decode(data, path_for(path))


def belongs(files: FileSystem, descriptor: int, journal: Journal) -> bool:
    """Whether an open file is the one of a journal, in a state that its edit can leave.

    File systems give inode numbers again. While the magic stands, nothing has changed yet, or
    everything.
    """
    patch = journal.patch
    if os.fstat(descriptor).st_ino != journal.inode:
        return False
    if files.read(descriptor, 0, len(MAGIC)) != MAGIC:
        return True
    return any(
        files.size(descriptor) == size and files.read(descriptor, 0, len(front)) == front
        for size, front in ((patch.size, patch.old_front), (patch.size_after, patch.new_front))
    )


def remove(files: FileSystem, path: Path) -> None:
    """Take the journal away, and make that durable."""
    files.take_away(path_for(path))


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _checksum(body: dict[str, object]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode("ascii")).hexdigest()
