"""What makes an edit undoable: a record of the file before it, kept in the file or beside it.

A record is untrusted input, since a downloaded file may carry one; `ggufext.opened.restoration`
checks it against its file.
"""

from __future__ import annotations

import base64
import json
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ggufext.errors import GgufextError, JournalError
from ggufext.header.frequencies import MOST_PAIRS, factor_tensors
from ggufext.header.header import ValueType, companion, parse_header
from ggufext.header.model import model_facts
from ggufext.opened import beside as beside_model
from ggufext.opened.patch import HISTORY_KEY, PADDING_KEY, encode_entry, tensor_infos, whole_patch

if TYPE_CHECKING:
    from pathlib import Path

    from ggufext.header.header import Header
    from ggufext.opened.files import FileSystem


#: The original content of the tensors that earlier edits touched; None: appended by them.
Originals = tuple[tuple[str, bytes | None], ...]


#: A file's undo record lies beside it under this name where the file itself has no room.
SIDECAR_SUFFIX = ".ggufext-undo"

#: Longest record taken for real, and most that its contents unpack to, bytes.
LARGEST_RECORD = 16 * 1024 * 1024

_FORMAT = 2

#: Where each part of the original header comes from, in order: a key, whose entry the record holds,
#: or (start, length) of the edited header without the keys of this program.
Layout = tuple["str | tuple[int, int]", ...]


@dataclass(frozen=True, slots=True)
class History:
    """How to get back to the original file.

    Attributes
    ----------
    tool : str
        Program and version that wrote it.
    time : str
        When, ISO 8601, UTC.
    method : str
    target_length : int
        Tokens.
    size, data_offset : int
        Of the original file, bytes.
    header_sha256 : str
        Of the original file's first `data_offset` bytes.
    tensors_sha256 : str
        Of the original content of all factor tensors, in the order of the file.
    edited_sha256 : str
        Of the edited header without the keys of this program.
    original : tuple of (str, bytes or None)
        Entries of the original header that the edited one lacks; None for a key that was added.
    tensors : Originals
        Tensors that were overwritten, as they stood in the file, and those that were appended.
    start, end : bytes
        The original header before its first entry and behind its tensor infos.
    layout : Layout
        What lies between them.
    """

    tool: str
    time: str
    method: str
    target_length: int
    size: int
    data_offset: int
    header_sha256: str
    tensors_sha256: str
    edited_sha256: str
    original: Originals
    tensors: Originals
    start: bytes
    end: bytes
    layout: Layout

    def encode(self) -> str:
        """The record as JSON text."""
        return json.dumps(
            {
                "format": _FORMAT,
                "tool": self.tool,
                "time": self.time,
                "method": self.method,
                "target_length": self.target_length,
                "size": self.size,
                "data_offset": self.data_offset,
                "header_sha256": self.header_sha256,
                "tensors_sha256": self.tensors_sha256,
                "edited_sha256": self.edited_sha256,
                "original": _as_text(self.original),
                "tensors": _as_text(self.tensors),
                "start": _packed(self.start),
                "end": _packed(self.end),
                "layout": self.layout,
            },
            separators=(",", ":"),
        )

    def entry(self) -> bytes:
        """The record as a metadata entry."""
        return encode_entry(HISTORY_KEY, ValueType.STRING, self.encode())


def decode(text: str, path: Path | None = None) -> History:
    """Read a record.

    Raises
    ------
    JournalError
        ``history_mismatch`` for anything that is not such a record.
    """
    try:
        if len(text) > LARGEST_RECORD:
            raise ValueError("too long")
        record = json.loads(text)
        if record.get("format") != _FORMAT:
            raise _other_format(record, path)
        unpacked = _Unpacking()
        return History(
            tool=_text(record["tool"]),
            time=_text(record["time"]),
            method=_text(record["method"]),
            target_length=_count(record["target_length"]),
            size=_count(record["size"]),
            data_offset=_count(record["data_offset"]),
            header_sha256=_text(record["header_sha256"]),
            tensors_sha256=_text(record["tensors_sha256"]),
            edited_sha256=_text(record["edited_sha256"]),
            original=unpacked.contents(record["original"]),
            tensors=unpacked.contents(record["tensors"]),
            start=unpacked.content(record["start"]),
            end=unpacked.content(record["end"]),
            layout=tuple(_part(part) for part in record["layout"]),
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, zlib.error) as error:
        raise JournalError(
            code="history_mismatch",
            field=HISTORY_KEY,
            path=path,
            message=f"is no undo record of this program ({type(error).__name__}); the file "
            "cannot be undone; get the original again",
        ) from None


def _other_format(record: dict[str, object], path: Path | None) -> JournalError:
    return JournalError(
        code="history_mismatch",
        field=HISTORY_KEY,
        path=path,
        message=f"is an undo record in format {record.get('format', 1)} by "
        f"{record.get('tool', 'an unknown version')}, and this version reads format {_FORMAT}; "
        "undo with the version that wrote it, or get the original again",
    )


def in_file(header: Header) -> History | None:
    """The record that a file carries, if any; raises as `decode` does."""
    entry = header.keys.get(HISTORY_KEY)
    if entry is None:
        return None
    value = header.value(HISTORY_KEY)
    return decode(value if isinstance(value, str) else "", header.path)


def sidecar(path: Path) -> Path:
    """Where a record lies that had no room in its file."""
    return companion(path, SIDECAR_SUFFIX)


def beside(files: FileSystem, path: Path) -> History | None:
    """The record that lies beside a file, if any; raises as `decode`, and ``foreign_owner``."""
    data = beside_model.read(files, sidecar(path), path, LARGEST_RECORD)
    return None if data is None else decode(data.decode("utf-8", errors="replace"), sidecar(path))


def _packed(data: bytes) -> str:
    # A filler of thousands of spaces may be part of an original.
    return base64.b64encode(zlib.compress(data, 9)).decode("ascii")


def _as_text(originals: Originals) -> dict[str, str | None]:
    return {name: None if raw is None else _packed(raw) for name, raw in originals}


class _Unpacking:
    """Unpacks what a record holds, to `LARGEST_RECORD` bytes in all."""

    def __init__(self) -> None:
        self.room = LARGEST_RECORD

    def content(self, text: str) -> bytes:
        unpacking = zlib.decompressobj()
        # One byte more than there is room for, as 0 would mean no limit.
        data = unpacking.decompress(base64.b64decode(text, validate=True), self.room + 1)
        self.room -= len(data)
        if self.room < 0 or not unpacking.eof:
            raise ValueError("too long")
        return data

    def contents(self, texts: dict[str, str | None]) -> Originals:
        return tuple(
            (_text(name), None if text is None else self.content(text))
            for name, text in texts.items()
        )


def _part(part: object) -> str | tuple[int, int]:
    if isinstance(part, str):
        return part
    if not isinstance(part, list):
        raise TypeError
    start, length = part
    return _count(start), _count(length)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _count(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise TypeError
    return value


#: Longest factor tensor taken for real, bytes: 32-bit numbers.
_LONGEST_TENSOR = 4 * MOST_PAIRS


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
    try:
        now = model_facts(header)
        written = {key for key, _ in now.metadata}
        keys = tuple((key, raw) for key, raw in record.original if key in written)
        original = _with_keys(header, header_bytes, dict(keys))
        before = model_facts(original)
    except (GgufextError, ValueError):
        return None
    sizes = {tensor.name: tensor.size for tensor in factor_tensors(header)}
    tensors = tuple(
        (name, raw)
        for name, raw in record.tensors
        if raw is not None and sizes.get(name) == len(raw) <= _LONGEST_TENSOR
    )
    added = tuple(name for name, raw in record.tensors if raw is None and name in sizes)
    if before.metadata == now.metadata and not tensors and not added:
        return None
    return Copied(original, keys, tensors, added, record.method, record.target_length)


def _with_keys(header: Header, header_bytes: bytes, keys: dict[str, bytes | None]) -> Header:
    """The header with other entries of some keys.

    Raises
    ------
    HeaderError, ValueError
        An entry is none, or that of another key.
    """
    patch = whole_patch(
        header,
        header_bytes,
        replaced={key: raw for key, raw in keys.items() if key in header.keys},
        added=tuple(raw for key, raw in keys.items() if raw is not None and key not in header.keys),
        infos=tensor_infos(header, header_bytes),
        step=None,
    )
    made = parse_header(patch.applied(header_bytes), file_size=patch.size_after, path=header.path)
    gone = {PADDING_KEY, *(key for key, raw in keys.items() if raw is None)}
    if set(made.keys) != (set(header.keys) | set(keys)) - gone:
        raise ValueError("another key")
    return made
