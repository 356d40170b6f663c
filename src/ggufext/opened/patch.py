"""A change to a GGUF file as pure bytes: what stands where before, and after.

Only the front of a header is rewritten, unless tensors are added. In real files all model keys lie
before the first large array (the tokenizer), so the new header is the same file with a longer
front: everything behind it moves by exactly the growth and keeps its bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from ggufext.header.header import ValueType

if TYPE_CHECKING:
    from collections.abc import Callable

    from ggufext.header.header import Header, Value

#: Key that fills the room between the model keys and the tokenizer.
PADDING_KEY = "ggufext.padding"

#: Key with what is needed for an exact undo.
HISTORY_KEY = "ggufext.history"

#: Key in the place of an entry behind the front that changed its size and stands in the front now.
GAP_KEY = "ggufext.gap"

#: Keys of this program: an edit writes them anew, whatever they held.
OWN_KEYS = (HISTORY_KEY, PADDING_KEY, GAP_KEY)

#: Bytes of magic, version and the two counts.
FIXED_SIZE = 24

#: Entries from these sizes on are left where they are: the front ends before the first of them.
_LARGE_ARRAY = 1024
_LARGE_ENTRY = 64 * 1024

#: Room that a new filler leaves for later edits, bytes.
_ROOM_FOR_LATER = 512

#: How values of a type are packed, by `struct`.
FORMATS = {
    ValueType.UINT8: "<B",
    ValueType.INT8: "<b",
    ValueType.UINT16: "<H",
    ValueType.INT16: "<h",
    ValueType.UINT32: "<I",
    ValueType.INT32: "<i",
    ValueType.FLOAT32: "<f",
    ValueType.BOOL: "<?",
    ValueType.UINT64: "<Q",
    ValueType.INT64: "<q",
    ValueType.FLOAT64: "<d",
}


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes that change without changing their number, behind the front.

    Attributes
    ----------
    offset : int
        Bytes from the start of the file before the patch.
    old, new : bytes
        Of equal length.
    """

    offset: int
    old: bytes
    new: bytes


@dataclass(frozen=True, slots=True)
class Patch:
    """A change to a file. Undo is the same type, `inverted`.

    Attributes
    ----------
    size : int
        Bytes of the file before.
    old_front, new_front : bytes
        The file from its first byte on, before and after. What follows moves by `growth`.
    spans : tuple of Span
        Changes between the front and the tail, in order, not overlapping.
    old_tail, new_tail : bytes
        The last bytes of the file, before and after: tensors that an edit of ours appended.
    """

    size: int
    old_front: bytes
    new_front: bytes
    spans: tuple[Span, ...] = ()
    old_tail: bytes = b""
    new_tail: bytes = b""

    @property
    def growth(self) -> int:
        """Bytes by which the file grows at its start; negative when it shrinks."""
        return len(self.new_front) - len(self.old_front)

    @property
    def tail_start(self) -> int:
        """Byte at which the tail starts before the patch; it moves by the growth."""
        return self.size - len(self.old_tail)

    @property
    def size_moving(self) -> int:
        """Bytes of the file before its data moves: with the longer one of the two tails."""
        return self.tail_start + max(len(self.old_tail), len(self.new_tail))

    @property
    def size_after(self) -> int:
        """Bytes of the file after."""
        return self.tail_start + self.growth + len(self.new_tail)

    @property
    def tells_its_state(self) -> bool:
        """Whether the size of an interrupted file tells how far the patch came.

        It does not where one end grows while the other shrinks.
        """
        return self.growth * (len(self.new_tail) - len(self.old_tail)) >= 0

    def inverted(self) -> Patch:
        """The patch that takes this one back."""
        return Patch(
            size=self.size_after,
            old_front=self.new_front,
            new_front=self.old_front,
            spans=tuple(Span(s.offset + self.growth, s.new, s.old) for s in self.spans),
            old_tail=self.new_tail,
            new_tail=self.old_tail,
        )

    def applied(self, header: bytes) -> bytes:
        """The header's bytes after the patch, from its bytes before."""
        # Headers of 10 MB are usual, and every copy of one shows.
        whole = b"".join((self.new_front, memoryview(header)[len(self.old_front) :]))
        if not self.spans:
            return whole
        content = bytearray(whole)
        for span in self.spans:
            if span.offset >= len(header):
                break  # data of a tensor
            start = span.offset + self.growth
            content[start : start + len(span.new)] = span.new
        return bytes(content)

    def leads_to(self, header: bytes, wanted: bytes) -> bool:
        """Whether a header's bytes become others by the patch; nothing of them is copied."""
        before, done = memoryview(header), len(self.new_front)
        if not wanted.startswith(self.new_front):
            return False
        for span in self.spans:
            if span.offset >= len(header):
                break  # data of a tensor
            start = span.offset + self.growth
            kept = before[done - self.growth : span.offset]
            if not (wanted.startswith(kept, done) and wanted.startswith(span.new, start)):
                return False
            done = start + len(span.new)
        kept = before[done - self.growth :]
        return len(wanted) == done + len(kept) and wanted.startswith(kept, done)

    def shared_from(self, block: int) -> int:
        """First byte, before the patch, from which a new file can share the old one's blocks."""
        return min(-(-len(self.old_front) // block) * block, self.size)

    def reader(self, read: Callable[[int, int], bytes]) -> Callable[[int, int], bytes]:
        """Reads (offset, size) of the file as it will be, behind its front, from the file as it is.

        Parameters
        ----------
        read : callable
            Reads (offset, size) of the file before the patch.
        """
        tail = Span(self.tail_start, b"", self.new_tail)

        def read_after(offset: int, size: int) -> bytes:
            start = offset - self.growth
            end = min(start + size, self.tail_start + len(self.new_tail))
            content = bytearray(read(start, min(end, self.tail_start) - start))
            content.extend(bytes(max(0, end - start - len(content))))
            for span in (*self.spans, tail):
                first, last = max(start, span.offset), min(end, span.offset + len(span.new))
                if first < last:
                    content[first - start : last - start] = span.new[
                        first - span.offset : last - span.offset
                    ]
            return bytes(content)

        return read_after


def encode_entry(
    key: str, kind: ValueType, value: Value, element_type: ValueType | None = None
) -> bytes:
    """One metadata entry as it stands in a file.

    Parameters
    ----------
    key : str
    kind : ValueType
    value : Value
        Fits the type.
    element_type : ValueType or None
        Of an array's elements.
    """
    head = _string(key) + struct.pack("<I", kind)
    if element_type is None or not isinstance(value, tuple):
        return head + _payload(kind, value)
    count = struct.pack("<IQ", element_type, len(value))
    if element_type is ValueType.STRING:
        return b"".join((head, count, *map(_string, value)))
    form = f"<{len(value)}{FORMATS[element_type][1:]}"
    return head + count + struct.pack(form, *value)


def _payload(kind: ValueType, value: Value) -> bytes:
    return _string(value) if kind is ValueType.STRING else struct.pack(FORMATS[kind], value)


def _string(text: Value) -> bytes:
    data = str(text).encode("utf-8")
    return struct.pack("<Q", len(data)) + data


#: The smallest filler: an empty string.
_SMALLEST_PADDING = len(encode_entry(PADDING_KEY, ValueType.STRING, ""))


#: The smallest entry in whose place a gap can be.
_SMALLEST_GAP = len(encode_entry(GAP_KEY, ValueType.STRING, ""))


def _padding_entry(size: int) -> bytes:
    """A filler of exactly `size` bytes, at least `_SMALLEST_PADDING`."""
    return encode_entry(PADDING_KEY, ValueType.STRING, " " * (size - _SMALLEST_PADDING))


def _gap_entry(size: int) -> bytes:
    """A gap of exactly `size` bytes, at least `_SMALLEST_GAP`."""
    return encode_entry(GAP_KEY, ValueType.STRING, " " * (size - _SMALLEST_GAP))


#: New entries by key: they replace those of the file, or are added; None for a key that goes.
EntryChanges = Mapping[str, bytes | None]


class Entries(NamedTuple):
    """Entries of a header after a change, without the filler.

    Attributes
    ----------
    front, behind : dict of str to buffer
        Before and behind the byte `front_end` of the header as it is, in the order of the file.
        New keys stand at the end of the front.
    front_end : int
    gap : str or None
        Key in whose place behind the front a gap is made.
    """

    front: dict[str, bytes | memoryview]
    behind: dict[str, bytes | memoryview]
    front_end: int
    gap: str | None


def changed_entries(header: Header, header_bytes: bytes, changes: EntryChanges) -> Entries:
    """Entries of a header after a change.

    The front holds every entry that changes its size, and ends before the first large entry
    where that is possible. A single entry behind that leaves a gap in its place; where there is
    one already, or several change their size, the front ends behind them all.

    Parameters
    ----------
    header, header_bytes : Header, bytes
        Of the file as it is, and its first data_offset bytes.
    changes : EntryChanges
    """
    end = FIXED_SIZE
    for entry in header.keys.values():
        large = _LARGE_ARRAY if entry.type is ValueType.ARRAY else _LARGE_ENTRY
        if entry.end - entry.start >= large:
            break
        end = entry.end
    # They count always: where new keys go must not depend on how long a record is.
    for key in (HISTORY_KEY, PADDING_KEY):
        if key in header.keys:
            end = max(end, header.keys[key].end)
    late = [
        key
        for key, entry in header.keys.items()
        if entry.start >= end
        and key in changes
        and len(changes[key] or b"") != entry.end - entry.start
    ]
    gap = _gap(header, late)
    if gap is None and late:
        end = max(end, header.keys[late[-1]].end)
    entries, view = Entries({}, {}, end, gap), memoryview(header_bytes)
    for key, entry in header.keys.items():
        if key == gap:
            entries.behind[GAP_KEY] = _gap_entry(entry.end - entry.start)
            continue
        now = changes.get(key, view[entry.start : entry.end])
        is_spent = key == PADDING_KEY or (key == GAP_KEY and entry.start < end)
        if now is not None and not is_spent:
            (entries.front if entry.start < end else entries.behind)[key] = now
    for key, new in changes.items():
        if new is not None and (key not in header.keys or key == gap):
            entries.front[key] = new
    return entries


def _gap(header: Header, late: list[str]) -> str | None:
    """The entry behind the front, of those that change their size, that leaves a gap."""
    if len(late) != 1 or GAP_KEY in header.keys:
        return None
    entry = header.keys[late[0]]
    return late[0] if entry.end - entry.start >= _SMALLEST_GAP else None


def front_patch(header: Header, header_bytes: bytes, *, changes: EntryChanges, step: int) -> Patch:
    """Patch that changes entries, keeping a filler at the end of the front.

    The file does not grow when there is room in an earlier filler, and grows by a multiple of
    `step` otherwise.

    Parameters
    ----------
    header, header_bytes, changes
        As for `changed_entries`; no filler among the changes.
    step : int
        A power of two, at least the alignment.
    """
    entries = changed_entries(header, header_bytes, changes)
    end, body = entries.front_end, b"".join(entries.front.values())
    used = FIXED_SIZE + len(body) + _SMALLEST_PADDING
    growth = 0 if used <= end else _rounded_up(used + _ROOM_FOR_LATER - end, step)
    filler = _padding_entry(end + growth - FIXED_SIZE - len(body))
    count = len(entries.front) + len(entries.behind) + 1
    values = {key: changes.get(key) for key in entries.behind}
    if entries.gap is not None:
        values |= {GAP_KEY: None, entries.gap: bytes(entries.behind[GAP_KEY])}
    return Patch(
        size=header.file_size,
        old_front=header_bytes[:end],
        new_front=_fixed(header_bytes, count, header.tensor_count) + body + filler,
        spans=_value_spans(header, header_bytes, values),
    )


@dataclass(frozen=True, slots=True)
class TensorInfos:
    """The descriptions of a file's tensors as bytes, and their number."""

    count: int
    encoded: bytes


def tensor_infos(header: Header, header_bytes: bytes) -> TensorInfos:
    """Those of a file as it is."""
    encoded = header_bytes[header.keys_end : header.infos_end]
    return TensorInfos(header.tensor_count, encoded)


def whole_patch(
    header: Header,
    header_bytes: bytes,
    *,
    changes: EntryChanges,
    infos: TensorInfos,
    step: int | None,
) -> Patch:
    """Patch that rewrites the whole header: where tensors change, or for a copy.

    New entries go where `front_patch` would put them; gaps are closed.

    Parameters
    ----------
    header, header_bytes, changes
        As in `front_patch`.
    infos : TensorInfos
        Descriptions of the tensors after the patch.
    step : int or None
        The file grows by a multiple of it, with a filler; None: no filler, a filler in the file
        is removed, and the file becomes as long as it must.
    """
    entries = changed_entries(header, header_bytes, changes)
    entries.behind.pop(GAP_KEY, None)
    body, behind = b"".join(entries.front.values()), b"".join(entries.behind.values())
    count, filler = len(entries.front) + len(entries.behind), b""
    size = FIXED_SIZE + len(body) + len(behind) + len(infos.encoded)
    padding = header_bytes[header.infos_end :]
    if step is not None:
        # As much padding as before, so that an undo that only changes the front finds it.
        used, room = size + _SMALLEST_PADDING + len(padding), header.data_offset
        growth = 0 if used <= room else _rounded_up(used + _ROOM_FOR_LATER - room, step)
        filler, count = _padding_entry(room + growth - size - len(padding)), count + 1
    new = _fixed(header_bytes, count, infos.count) + body + filler + behind + infos.encoded
    if infos.count:
        missing = -len(new) % header.alignment
        new += padding if len(padding) == missing else bytes(missing)
    return Patch(size=header.file_size, old_front=header_bytes, new_front=new)


def value_patch(header: Header, header_bytes: bytes, changes: EntryChanges) -> Patch | None:
    """Patch that changes values where they stand; None where that is not enough."""
    for key, new in changes.items():
        entry = header.keys.get(key)
        if entry is None:
            if new is not None:
                return None
        elif new is None or len(new) != entry.end - entry.start:
            return None
    front = header_bytes[:FIXED_SIZE]
    return Patch(
        size=header.file_size,
        old_front=front,
        new_front=front,
        spans=_value_spans(header, header_bytes, changes),
    )


def _value_spans(header: Header, header_bytes: bytes, changes: EntryChanges) -> tuple[Span, ...]:
    """Entries of the file that change without changing their size, in its order."""
    spans = []
    for key, new in changes.items():
        if new is not None:
            entry = header.keys[key]
            old = header_bytes[entry.start : entry.end]
            if old != new:
                spans.append(Span(entry.start, old, new))
    return tuple(sorted(spans, key=lambda span: span.offset))


def _fixed(header_bytes: bytes, key_count: int, tensor_count: int) -> bytes:
    return header_bytes[:8] + struct.pack("<QQ", tensor_count, key_count)


def _rounded_up(size: int, step: int) -> int:
    return -(-size // step) * step
