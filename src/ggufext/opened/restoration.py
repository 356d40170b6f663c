"""From a file and a record back to what was before, in memory: the original of an edited file.

The record is believed only where it was made for this very state of the file, and where the header
and the factor tensors that it leads to have the hashes of the original. Nothing else of a file is
ever written by an edit. Other tools copy unknown keys, so files carry records that do not fit.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, NamedTuple

from ggufext import __version__
from ggufext.errors import GgufextError, JournalError
from ggufext.header.facts import model_facts
from ggufext.header.frequencies import factor_tensors
from ggufext.header.header import parse_header
from ggufext.opened.history import LARGEST_RECORD, History
from ggufext.opened.patch import (
    FIXED_SIZE,
    GAP_KEY,
    HISTORY_KEY,
    OWN_KEYS,
    PADDING_KEY,
    Patch,
    Span,
    tensor_infos,
    whole_patch,
)
from ggufext.opened.tensors import LARGEST_TENSOR, tensor_change

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from ggufext.header.header import Header, TensorInfo
    from ggufext.opened.history import HeaderLayout, Originals
    from ggufext.opened.patch import EntryChanges
    from ggufext.planning.evidence import Evidence


@dataclass(frozen=True, slots=True)
class Original:
    """The header of a file before its first edit.

    Attributes
    ----------
    header : Header
    header_bytes : bytes
        Its first data_offset bytes.
    sha256 : str
        Of those.
    """

    header: Header
    header_bytes: bytes
    sha256: str


@dataclass(frozen=True, slots=True)
class Restored:
    """What a record leads back to.

    Attributes
    ----------
    record : History
    original : Original
    patch : Patch or None
        From the file as it is to the original; None where only the header is here.
    """

    record: History
    original: Original
    patch: Patch | None


class Made(NamedTuple):
    """What a file holds of ours after an edit; the fields are those of `History`."""

    method: str | None = None
    target_length: int | None = None
    evidence: Evidence | None = None
    set_before: Originals = ()


def record_of(
    original: Original,
    entries: Mapping[str, bytes | memoryview],
    infos: bytes,
    *,
    made: Made,
    time: str,
    tensors: Originals,
    data: Callable[[TensorInfo], bytes],
) -> History:
    """The record of an edit about to be made, back to the original file.

    Parameters
    ----------
    original : Original
    entries : mapping of str to buffer
        Of the header after the edit, in order; whatever the keys of this program hold.
    infos : bytes
        Descriptions of the tensors after the edit.
    made : Made
    tensors : Originals
        What an undo puts back into tensors.
    data : callable
        Reads a tensor of the original from the file as it is.
    """
    header, header_bytes = original.header, original.header_bytes
    kept = {key: entry for key, entry in entries.items() if key not in OWN_KEYS}
    layout = _layout(header, header_bytes, kept)
    before = {
        key: header_bytes[header.keys[key].start : header.keys[key].end]
        for key in layout
        if isinstance(key, str)
    }
    added = [key for key in kept if key not in header.keys]
    return History(
        tool=f"ggufext {__version__}",
        time=time,
        method=made.method,
        target_length=made.target_length,
        size=header.file_size,
        data_offset=header.data_offset,
        header_sha256=original.sha256,
        tensors_sha256=_hash_of_factors(header, tensors, data),
        edited_sha256=_hash_of_rest((*kept.values(), infos), layout),
        original=(*before.items(), *((key, None) for key in added)),
        tensors=tensors,
        start=header_bytes[:FIXED_SIZE],
        end=header_bytes[header.infos_end :],
        layout=layout,
        evidence=made.evidence,
        set_before=made.set_before,
    )


def _layout(
    original: Header, original_bytes: bytes, kept: Mapping[str, bytes | memoryview]
) -> HeaderLayout:
    places, end = {}, 0
    for key, entry in kept.items():
        places[key] = end
        end += len(entry)
    parts: list[str | tuple[int, int]] = []
    done = 0
    for key, at in original.keys.items():
        length, now, place = at.end - at.start, kept.get(key, b""), places.get(key, -1)
        same = len(now) == length and original_bytes.startswith(now, at.start)
        if place < done or not same:
            parts.append(key)
            continue
        last = parts[-1] if parts else None
        if isinstance(last, tuple) and done == place:
            parts[-1] = (last[0], last[1] + length)
        else:
            parts.append((place, length))
        done = place + length
    # Descriptions of appended tensors stand behind those of the original.
    return (*parts, (end, original.infos_end - original.keys_end))


def find_restored(
    header: Header,
    header_bytes: bytes,
    records: Iterable[Callable[[], History | None]],
    read: Callable[[int, int], bytes] | None,
) -> tuple[Restored | None, JournalError | None]:
    """What the first record that fits leads back to, or why a record does not fit.

    Parameters
    ----------
    header, header_bytes : Header, bytes
        Of the file as it is, and its first data_offset bytes.
    records : iterable of callable
        Each reads the record of one place.
    read : callable or None
        Reads (offset, size) of the file; None where only the header is here.
    """
    complaint = None
    for record_at in records:
        try:
            record = record_at()
            if record is not None:
                return restore(header, header_bytes, record, read), None
        except JournalError as error:
            complaint = complaint or error
    return None, complaint


def restore(
    header: Header,
    header_bytes: bytes,
    record: History,
    read: Callable[[int, int], bytes] | None,
    *,
    known: Original | None = None,
) -> Restored:
    """What a record leads back to, checked against its hashes.

    Parameters
    ----------
    header, header_bytes, read
        As for `find_restored`.
    record : History
    known : Original, optional
        What it has to be: the same bytes are neither hashed nor read again.

    Raises
    ------
    JournalError
        ``history_mismatch``: the record belongs to another file, or the file was changed since.
    """
    original, pieces = _original(header, header_bytes, record, known)
    if read is None:
        return Restored(record, original, None)
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
            original.header, record.tensors, lambda t: read(header.data_offset + t.offset, t.size)
        )
        if factors != record.tensors_sha256:
            raise ValueError("hash")
    except ValueError:
        what = "the file's size or tensors differ from those in the undo record"
        raise _mismatch(header, what) from None
    restored = original.header_bytes
    patch = change.with_data(_patch_between(header, header_bytes, restored, pieces))
    if patch.size_after != record.size or not patch.leads_to(header_bytes, restored):
        raise _mismatch(header, "the header was changed since")
    return Restored(record, original, patch)


class _Piece(NamedTuple):
    """A part of the original header, and where the edited one holds it; None: nowhere."""

    data: bytes | memoryview
    place: int | None


def _original(
    header: Header, header_bytes: bytes, record: History, known: Original | None
) -> tuple[Original, tuple[_Piece, ...]]:
    try:
        rest = _buffers(header_bytes, _ranges_of_content(header))
        if _hash_of_rest(rest, record.layout) != record.edited_sha256:
            raise ValueError("rest")
        pieces = tuple(_pieces(header, header_bytes, record))
        if known is None or not _same(pieces, known.header_bytes):
            known = _read(pieces, record, header.path)
        elif known.sha256 != record.header_sha256 or known.header.file_size != record.size:
            raise ValueError("hash")
    except (ValueError, KeyError, GgufextError):
        raise _mismatch(header, "the header is not the one that the edit left") from None
    return known, pieces


def _same(pieces: tuple[_Piece, ...], content: bytes) -> bool:
    done = 0
    for piece in pieces:
        if not content.startswith(piece.data, done):
            return False
        done += len(piece.data)
    return done == len(content)


def _read(pieces: tuple[_Piece, ...], record: History, path: Path | None) -> Original:
    restored = b"".join(piece.data for piece in pieces)
    sha256 = hashlib.sha256(restored).hexdigest()
    if len(restored) != record.data_offset or sha256 != record.header_sha256:
        raise ValueError("hash")
    return Original(parse_header(restored, file_size=record.size, path=path), restored, sha256)


def _pieces(header: Header, header_bytes: bytes, record: History) -> Iterator[_Piece]:
    before = dict(record.original)
    if len(record.start) != FIXED_SIZE:
        raise ValueError("start")
    yield _Piece(record.start, None)
    ranges = _ranges_of_content(header)
    # A record may name an entry many times.
    room = len(header_bytes) + LARGEST_RECORD
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


def _buffers(header_bytes: bytes, ranges: Iterable[tuple[int, int]]) -> tuple[memoryview, ...]:
    view = memoryview(header_bytes)
    return tuple(view[start:end] for start, end in ranges)


def _hash_of_rest(content: tuple[bytes | memoryview, ...], layout: HeaderLayout) -> str:
    """Hash of what an edited header holds besides that of which the original is made.

    With the hash of the original it covers every byte; and no byte is hashed twice.

    Parameters
    ----------
    content : tuple of buffer
        Entries and tensor infos of the edited header, without the keys of this program.
    layout : HeaderLayout
    """
    ends = [0, *accumulate(map(len, content))]
    ranges = list(pairwise(ends))
    kept = (part for part in layout if not isinstance(part, str))
    done, rest = 0, hashlib.sha256()
    for start, length in (*kept, (ends[-1], 0)):
        if start < done:
            raise ValueError("order")
        for buffer, (low, high) in zip(content, ranges, strict=True):
            first, last = max(low, done), min(high, start)
            if first < last:
                rest.update(buffer[first - low : last - low])
        if start > ends[-1]:
            raise ValueError("range")
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


@dataclass(frozen=True, slots=True)
class Copied:
    """What an extension replaced in the file that this one was copied from.

    Attributes
    ----------
    original : Header
        The header with the replaced keys put back, and every tensor of the file.
    keys : tuple of (str, bytes or None)
        Those keys, as entries; None for a key that the extension added.
    tensors : tuple of (str, bytes)
        Factor tensors that it overwrote, as they were before.
    added : tuple of str
        Factor tensors that it added, which stay in the file.
    method, target_length
        As the record says.
    """

    original: Header
    keys: tuple[tuple[str, bytes | None], ...]
    tensors: tuple[tuple[str, bytes], ...]
    added: tuple[str, ...]
    method: str
    target_length: int


def copied_extension(header: Header, header_bytes: bytes, record: History) -> Copied | None:
    """The extension that a record of another file tells of.

    Parameters
    ----------
    header, header_bytes : Header, bytes
        Of the file as it is, and its first data_offset bytes.
    record : History
        One that does not fit the file.

    Returns
    -------
    Copied or None
        None where the file holds nothing of it any more, or the record makes no sense.
    """
    if record.method is None or record.target_length is None:
        return None
    try:
        now = model_facts(header)
        written, by_hand = {key for key, _ in now.metadata}, dict(record.set_before)
        keys = tuple((key, by_hand.get(key, raw)) for key, raw in record.original if key in written)
        original = with_entries(header, header_bytes, dict(keys))
        before = model_facts(original)
    except (GgufextError, ValueError):
        return None
    sizes = {tensor.name: tensor.size for tensor in factor_tensors(header)}
    tensors = tuple(
        (name, raw)
        for name, raw in record.tensors
        if raw is not None and sizes.get(name) == len(raw) <= LARGEST_TENSOR
    )
    added = tuple(name for name, raw in record.tensors if raw is None and name in sizes)
    if before.metadata == now.metadata and not tensors and not added:
        return None
    return Copied(original, keys, tensors, added, record.method, record.target_length)


def with_entries(header: Header, header_bytes: bytes, keys: EntryChanges) -> Header:
    """The header with other entries of some keys, and without filler and gap.

    Raises
    ------
    HeaderError, ValueError
        An entry is none, or that of another key.
    """
    infos = tensor_infos(header, header_bytes)
    patch = whole_patch(header, header_bytes, changes=keys, infos=infos, step=None)
    made = parse_header(patch.applied(header_bytes), file_size=patch.size_after, path=header.path)
    gone = {PADDING_KEY, GAP_KEY, *(key for key, raw in keys.items() if raw is None)}
    if set(made.keys) != (set(header.keys) | set(keys)) - gone:
        raise ValueError("another key")
    return made
