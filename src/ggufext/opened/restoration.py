"""From an edited file and a record back to the original, checked in memory.

The record is believed only where it was made for this very state of the file, and where the header
and the factor tensors that it leads to have the hashes of the original. Nothing else of a file is
ever written by an edit. Other tools copy unknown keys, so files carry records that do not fit.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from ggufext import __version__
from ggufext.errors import GgufextError, JournalError
from ggufext.header.frequencies import factor_tensors
from ggufext.header.header import parse_header
from ggufext.opened import history
from ggufext.opened.history import History
from ggufext.opened.patch import FIXED_SIZE, HISTORY_KEY, OWN_KEYS, Patch, Span
from ggufext.opened.tensors import LARGEST_TENSOR, tensor_change

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from ggufext.header.header import Header, TensorInfo
    from ggufext.opened.files import FileSystem
    from ggufext.opened.history import Layout, Originals


@dataclass(frozen=True, slots=True)
class Restored:
    """The original of an edited file.

    Attributes
    ----------
    record : History
    header : Header
    header_bytes : bytes
        Its first data_offset bytes.
    patch : Patch
        From the file as it is to the original.
    """

    record: History
    header: Header
    header_bytes: bytes
    patch: Patch


def record_of(
    original: Header,
    original_bytes: bytes,
    edited: Header,
    edited_bytes: bytes,
    *,
    method: str,
    target_length: int,
    time: str,
    tensors: Originals,
    data: Callable[[TensorInfo], bytes],
) -> History:
    """The record of an edit about to be made, back to the original file.

    Parameters
    ----------
    original, original_bytes : Header, bytes
        Of the original file, and its first data_offset bytes.
    edited, edited_bytes : Header, bytes
        The same of the file after the edit; whatever the keys of this program hold.
    tensors : Originals
        What an undo puts back into tensors.
    data : callable
        Reads a tensor of the original from the file as it is.
    """
    layout = _layout(original, original_bytes, edited, edited_bytes)
    before = {
        key: original_bytes[original.keys[key].start : original.keys[key].end]
        for key in layout
        if isinstance(key, str)
    }
    added = [key for key in edited.keys if key not in original.keys and key not in OWN_KEYS]
    return History(
        tool=f"ggufext {__version__}",
        time=time,
        method=method,
        target_length=target_length,
        size=original.file_size,
        data_offset=original.data_offset,
        header_sha256=hashlib.sha256(original_bytes).hexdigest(),
        tensors_sha256=_hash_of_factors(original, tensors, data),
        edited_sha256=_hash_of_rest(edited, edited_bytes, layout),
        original=(*before.items(), *((key, None) for key in added)),
        tensors=tensors,
        start=original_bytes[:FIXED_SIZE],
        end=original_bytes[original.infos_end :],
        layout=layout,
    )


def _layout(original: Header, original_bytes: bytes, edited: Header, edited_bytes: bytes) -> Layout:
    places, end = {}, 0
    for key, entry in edited.keys.items():
        if key not in OWN_KEYS:
            places[key] = end
            end += entry.end - entry.start
    parts: list[str | tuple[int, int]] = []
    done = 0
    for key, entry in original.keys.items():
        raw = original_bytes[entry.start : entry.end]
        place = places.get(key, -1)
        now = edited.keys.get(key)
        if now is None or place < done or raw != edited_bytes[now.start : now.end]:
            parts.append(key)
            continue
        last = parts[-1] if parts else None
        if isinstance(last, tuple) and done == place:
            parts[-1] = (last[0], last[1] + len(raw))
        else:
            parts.append((place, len(raw)))
        done = place + len(raw)
    # Descriptions of appended tensors stand behind those of the original.
    return (*parts, (end, original.infos_end - original.keys_end))


def find(
    files: FileSystem,
    path: Path,
    header: Header,
    header_bytes: bytes,
    read: Callable[[int, int], bytes],
) -> tuple[Restored | None, JournalError | None]:
    """The original that a record in the file or beside it leads to, or why a record does not.

    Parameters
    ----------
    header, header_bytes : Header, bytes
        Of the file as it is, and its first data_offset bytes.
    read : callable
        Reads (offset, size) of the file.
    """
    complaint = None
    for place in (partial(history.in_file, header), partial(history.beside, files, path)):
        try:
            record = place()
            if record is not None:
                return restore(header, header_bytes, record, read), None
        except JournalError as error:
            complaint = complaint or error
    return None, complaint


def restore(
    header: Header, header_bytes: bytes, record: History, read: Callable[[int, int], bytes]
) -> Restored:
    """The original and the patch that leads to it, both checked against the record's hashes.

    Parameters are those of `find`.

    Raises
    ------
    JournalError
        ``history_mismatch``: the record belongs to another file, or the file was changed since.
    """
    original, restored, pieces = _original(header, header_bytes, record)
    try:
        change = tensor_change(
            header,
            header_bytes,
            read,
            wanted={},
            originals=record.tensors,
            original_size=record.size - record.data_offset,
        )
        if change.old_tail and not change.infos_change:
            raise ValueError("bytes behind the data")
        factors = _hash_of_factors(
            original, record.tensors, lambda t: read(header.data_offset + t.offset, t.size)
        )
        if factors != record.tensors_sha256:
            raise ValueError("hash")
    except ValueError:
        what = "the file's size or tensors differ from those in the undo record"
        raise _mismatch(header, what) from None
    patch = change.with_data(_patch_between(header, header_bytes, restored, pieces))
    if patch.size_after != record.size or patch.applied(header_bytes) != restored:
        raise _mismatch(header, "the header was changed since")
    return Restored(record, original, restored, patch)


def original_header(header: Header, header_bytes: bytes, record: History) -> Header:
    """The header of the original of a file of which only the start is here.

    Raises
    ------
    JournalError
        As `restore`; tensors are not looked at.
    """
    return _original(header, header_bytes, record)[0]


class _Piece(NamedTuple):
    """A part of the original header, and where the edited one holds it; None: nowhere."""

    data: bytes | memoryview
    place: int | None


def _original(
    header: Header, header_bytes: bytes, record: History
) -> tuple[Header, bytes, tuple[_Piece, ...]]:
    try:
        if _hash_of_rest(header, header_bytes, record.layout) != record.edited_sha256:
            raise ValueError("rest")
        pieces = tuple(_pieces(header, header_bytes, record))
        restored = b"".join(piece.data for piece in pieces)
        if len(restored) != record.data_offset:
            raise ValueError("size")
        if hashlib.sha256(restored).hexdigest() != record.header_sha256:
            raise ValueError("hash")
        original = parse_header(restored, file_size=record.size, path=header.path)
    except (ValueError, KeyError, GgufextError):
        raise _mismatch(header, "the header is not the one that the edit left") from None
    return original, restored, pieces


def _pieces(header: Header, header_bytes: bytes, record: History) -> Iterator[_Piece]:
    before = dict(record.original)
    if len(record.start) != FIXED_SIZE:
        raise ValueError("start")
    yield _Piece(record.start, None)
    ranges = _ranges_of_content(header)
    # A record may name an entry many times.
    room = len(header_bytes) + history.LARGEST_RECORD
    for part in record.layout:
        if isinstance(part, str):
            entry = before[part]
            if entry is None or room < len(entry):
                raise ValueError("entry")
            room -= len(entry)
            yield _Piece(entry, None)
            continue
        for start, end in _places(ranges, part[0], sum(part)):
            yield _Piece(memoryview(header_bytes)[start:end], start)
    yield _Piece(record.end, None)


def _ranges_of_content(header: Header) -> list[tuple[int, int]]:
    """Where a header's entries and tensor infos lie, without the keys of this program."""
    ranges, position = [], FIXED_SIZE
    for key, entry in header.keys.items():
        if key in OWN_KEYS:
            ranges.append((position, entry.start))
            position = entry.end
    return [*ranges, (position, header.infos_end)]


def _places(ranges: list[tuple[int, int]], start: int, end: int) -> Iterator[tuple[int, int]]:
    """Where bytes `start` to `end` of the content of these ranges lie."""
    done = 0
    for low, high in ranges:
        first, last = max(low, low + start - done), min(high, low + end - done)
        if first < last:
            yield first, last
        done += high - low
    if end > done:
        raise ValueError("range")


def _hash_of_rest(header: Header, header_bytes: bytes, layout: Layout) -> str:
    """Hash of what an edited header holds besides that of which the original is made.

    With the hash of the original it covers every byte; and no byte is hashed twice.
    """
    ranges = _ranges_of_content(header)
    end = sum(high - low for low, high in ranges)
    kept = (part for part in layout if not isinstance(part, str))
    done, rest = 0, hashlib.sha256()
    for start, length in (*kept, (end, 0)):
        if start < done:
            raise ValueError("order")
        for low, high in _places(ranges, done, start):
            rest.update(memoryview(header_bytes)[low:high])
        done = start + length
    return rest.hexdigest()


def _hash_of_factors(
    original: Header, tensors: Originals, data: Callable[[TensorInfo], bytes]
) -> str:
    before, content = dict(tensors), hashlib.sha256()
    for tensor in factor_tensors(original):
        if tensor.size > LARGEST_TENSOR:
            raise ValueError("tensor size")
        content.update(before.get(tensor.name) or data(tensor))
    return content.hexdigest()


def _patch_between(
    header: Header, header_bytes: bytes, restored: bytes, pieces: tuple[_Piece, ...]
) -> Patch:
    """Patch of a header whose front ends where everything behind it moves by one distance."""
    growth = len(restored) - len(header_bytes)
    position = front = len(restored)
    spans: list[Span] = []
    changed: list[Span] = []
    for piece in reversed(pieces):
        position -= len(piece.data)
        place = position - growth
        if piece.place is None:
            old = header_bytes[place : place + len(piece.data)] if place >= 0 else b""
            if old != piece.data:
                changed.append(Span(place, old, bytes(piece.data)))
        elif piece.place == place:
            spans, changed, front = spans + changed, [], position
        else:
            break
    return Patch(
        size=header.file_size,
        old_front=header_bytes[: front - growth],
        new_front=restored[:front],
        spans=tuple(reversed(spans)),
    )


def _mismatch(header: Header, what: str) -> JournalError:
    return JournalError(
        code="history_mismatch",
        field=HISTORY_KEY,
        path=header.path,
        message=f"{what}; the record was made for another state of the file, so an exact "
        "undo is not possible; get the original again, or use rewrite on this one",
    )
