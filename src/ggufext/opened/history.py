"""What makes an edit undoable: a record of the file before it, kept in the file or beside it.

A record is untrusted input, since a downloaded file may carry one; `ggufext.opened.restoration`
checks it against its file.
"""

from __future__ import annotations

import base64
import json
import zlib
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from ggufext.errors import JournalError
from ggufext.header.header import ValueType, companion
from ggufext.opened.patch import HISTORY_KEY, encode_entry
from ggufext.planning.evidence import decode_evidence

if TYPE_CHECKING:
    from pathlib import Path

    from ggufext.header.header import Header
    from ggufext.opened.files import FileSystem
    from ggufext.planning.evidence import Evidence


#: The original content of the tensors that earlier edits touched; None: appended by them.
Originals = tuple[tuple[str, bytes | None], ...]


#: A file's undo record lies beside it under this name where the file itself has no room.
_SIDECAR_SUFFIX = ".ggufext-undo"

#: Longest record taken for real, and most that its contents unpack to, bytes.
LARGEST_RECORD = 16 * 1024 * 1024

_FORMAT = 2

#: Where each part of the original header comes from, in order: a key, whose entry the record holds,
#: or (start, length) of the edited header without the keys of this program.
HeaderLayout = tuple["str | tuple[int, int]", ...]


@dataclass(frozen=True, slots=True)
class History:
    """How to get back to the original file.

    Attributes
    ----------
    tool : str
        Program and version that wrote it.
    time : str
        When, ISO 8601, UTC.
    method : str or None
        Of the extension; None where keys were set and nothing was extended.
    target_length : int or None
        Its length, tokens.
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
    layout : HeaderLayout
        What lies between them.
    evidence : Evidence or None
        What was measured of the edit before it was made.
    set_before : Originals
        Entries of keys that an extension may write, as `set` had written them before it; None for
        one that it had deleted.
    """

    tool: str
    time: str
    method: str | None
    target_length: int | None
    size: int
    data_offset: int
    header_sha256: str
    tensors_sha256: str
    edited_sha256: str
    original: Originals
    tensors: Originals
    start: bytes
    end: bytes
    layout: HeaderLayout
    evidence: Evidence | None = None
    set_before: Originals = ()

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
            }
            | ({"evidence": asdict(self.evidence)} if self.evidence else {})
            | ({"set_before": _as_text(self.set_before)} if self.set_before else {}),
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
        unpacked, is_extended = _Unpacking(), record["method"] is not None
        return History(
            tool=_text(record["tool"]),
            time=_text(record["time"]),
            method=_text(record["method"]) if is_extended else None,
            target_length=_count(record["target_length"]) if is_extended else None,
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
            evidence=decode_evidence(record.get("evidence")),
            set_before=unpacked.contents(record.get("set_before", {})),
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
    return companion(path, _SIDECAR_SUFFIX)


def beside(files: FileSystem, path: Path) -> History | None:
    """The record that lies beside a file, if any; raises as `decode`, and ``foreign_owner``."""
    data = files.read_beside(sidecar(path), path, LARGEST_RECORD)
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
