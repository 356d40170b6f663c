"""What makes an edit undoable: the entries that it replaced, kept in the file or beside it.

A history is untrusted input, since a downloaded file may carry one: it is bound to its file by
sizes and hashes, and the header that it leads to is built and parsed in memory before anything is
touched. Other tools copy unknown keys; on such a copy undo is refused.
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ggufext import __version__
from ggufext.editing.patch import HISTORY_KEY, encode_entry, restoring_patch, whole_patch
from ggufext.editing.tensors import tensor_change
from ggufext.errors import JournalError
from ggufext.header.header import ValueType
from ggufext.header.header import beside as path_beside
from ggufext.header.reading import parse_header

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ggufext.editing.files import FileSystem
    from ggufext.editing.patch import Patch, TensorInfos
    from ggufext.editing.tensors import Originals, TensorChange
    from ggufext.header.header import Header

#: A file's undo record lies beside it under this name where the file itself has no room.
SIDECAR_SUFFIX = ".ggufext-undo"

#: Longest record taken for real, bytes.
LARGEST_RECORD = 16 * 1024 * 1024


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
    infos_sha256 : str
        Of the tensor infos after the edit.
    original : tuple of (str, bytes or None)
        Entries that were replaced, as they stood in the file; None for a key that was added.
    tensors : Originals
        Tensors that were overwritten, as they stood in the file, and those that were appended.
    """

    tool: str
    time: str
    method: str
    target_length: int
    size: int
    data_offset: int
    header_sha256: str
    infos_sha256: str
    original: tuple[tuple[str, bytes | None], ...]
    tensors: Originals = ()

    def encode(self) -> str:
        """The record as JSON text."""
        return json.dumps(
            {
                "tool": self.tool,
                "time": self.time,
                "method": self.method,
                "target_length": self.target_length,
                "size": self.size,
                "data_offset": self.data_offset,
                "header_sha256": self.header_sha256,
                "infos_sha256": self.infos_sha256,
                "original": _as_text(self.original),
            }
            | ({"tensors": _as_text(self.tensors)} if self.tensors else {}),
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
        return History(
            tool=_text(record["tool"]),
            time=_text(record["time"]),
            method=_text(record["method"]),
            target_length=_count(record["target_length"]),
            size=_count(record["size"]),
            data_offset=_count(record["data_offset"]),
            header_sha256=_text(record["header_sha256"]),
            infos_sha256=_text(record["infos_sha256"]),
            original=_as_bytes(record["original"]),
            tensors=_as_bytes(record.get("tensors", {})),
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise JournalError(
            code="history_mismatch",
            field=HISTORY_KEY,
            path=path,
            message=f"is no undo record of this program ({type(error).__name__}); the file "
            "cannot be undone; get the original again",
        ) from None


def of_new_edit(
    header: Header,
    header_bytes: bytes,
    *,
    earlier: History | None,
    touched: tuple[str, ...],
    method: str,
    target_length: int,
    time: str,
    infos: TensorInfos,
    tensors: Originals,
) -> History:
    """The record for an edit about to be made.

    It always leads back to the original file, not to the edit before.

    Parameters
    ----------
    header, header_bytes : Header, bytes
        Of the file as it is, and its first data_offset bytes.
    earlier : History or None
        The file's record of an earlier edit.
    touched : tuple of str
        Keys that the edit adds or replaces.
    infos : TensorInfos
        After the edit.
    tensors : Originals
        What an undo puts back into tensors.
    """
    original = dict(earlier.original) if earlier else {}
    for key in touched:
        if key not in original:
            entry = header.keys.get(key)
            original[key] = None if entry is None else header_bytes[entry.start : entry.end]
    return History(
        tool=f"ggufext {__version__}",
        time=time,
        method=method,
        target_length=target_length,
        size=earlier.size if earlier else header.file_size,
        data_offset=earlier.data_offset if earlier else header.data_offset,
        header_sha256=earlier.header_sha256
        if earlier
        else hashlib.sha256(header_bytes).hexdigest(),
        infos_sha256=hashlib.sha256(infos.encoded).hexdigest(),
        original=tuple(original.items()),
        tensors=tensors,
    )


def in_file(header: Header) -> History | None:
    """The record that a file carries, if any."""
    entry = header.keys.get(HISTORY_KEY)
    if entry is None:
        return None
    value = header.value(HISTORY_KEY)
    return decode(value if isinstance(value, str) else "", header.path)


def undo_patch(
    header: Header, header_bytes: bytes, history: History, read: Callable[[int, int], bytes]
) -> Patch:
    """Patch that gives the original bytes back, checked against the record's hashes.

    Parameters
    ----------
    header, header_bytes : Header, bytes
        Of the file as it is, and its first data_offset bytes.
    history : History
    read : callable
        Reads (offset, size) of the file.

    Raises
    ------
    JournalError
        ``history_mismatch``: the record belongs to another file, or the file was changed since.
    """
    return _undone(header, header_bytes, history, read)[0]


def original_header(
    header: Header, header_bytes: bytes, history: History, read: Callable[[int, int], bytes]
) -> Header:
    """The header of the original file, for planning again; raises as `undo_patch` does."""
    patch, restored = _undone(header, header_bytes, history, read)
    return parse_header(restored, file_size=patch.size_after, path=header.path)


def _undone(
    header: Header, header_bytes: bytes, history: History, read: Callable[[int, int], bytes]
) -> tuple[Patch, bytes]:
    """The patch of an undo, and the header's bytes after it."""

    def mismatch(what: str) -> JournalError:
        return JournalError(
            code="history_mismatch",
            field=HISTORY_KEY,
            path=header.path,
            message=f"{what}; the record was made for another state of the file, so an exact "
            "undo is not possible; get the original again, or use rewrite on this one",
        )

    infos = header_bytes[header.keys_end : header.infos_end]
    if hashlib.sha256(infos).hexdigest() != history.infos_sha256:
        raise mismatch("the tensors differ from those in the undo record")
    try:
        change = _undone_tensors(header, header_bytes, history, read)
    except ValueError:
        raise mismatch("the file's size or tensors differ from those in the undo record") from None
    replaced = {key: raw for key, raw in history.original if key in header.keys}
    if any(raw is not None and key not in replaced for key, raw in history.original):
        raise mismatch("a key of the undo record is missing")
    if HISTORY_KEY in header.keys:
        replaced[HISTORY_KEY] = None
    if change.infos_change:
        patch = whole_patch(
            header, header_bytes, replaced=replaced, added=(), infos=change.infos, step=None
        )
    else:
        patch = restoring_patch(header, header_bytes, replaced=replaced)
    patch = change.with_data(patch)
    restored = patch.applied(header_bytes)
    if (
        patch.size_after != history.size
        or hashlib.sha256(restored).hexdigest() != history.header_sha256
    ):
        raise mismatch("the header was changed since")
    return patch, restored


def _undone_tensors(
    header: Header, header_bytes: bytes, history: History, read: Callable[[int, int], bytes]
) -> TensorChange:
    change = tensor_change(
        header,
        header_bytes,
        read,
        wanted={},
        originals=history.tensors,
        original_size=history.size - history.data_offset,
    )
    if change.old_tail and not change.infos_change:
        raise ValueError("bytes behind the data")
    return change


def _as_text(originals: Originals) -> dict[str, str | None]:
    return {
        name: None if raw is None else base64.b64encode(raw).decode("ascii")
        for name, raw in originals
    }


def _as_bytes(originals: dict[str, str | None]) -> Originals:
    return tuple(
        (_text(name), None if raw is None else base64.b64decode(raw, validate=True))
        for name, raw in originals.items()
    )


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _count(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise TypeError
    return value


def sidecar(path: Path) -> Path:
    """Where a record lies that had no room in its file."""
    return path_beside(path, SIDECAR_SUFFIX)


def beside(files: FileSystem, path: Path) -> History | None:
    """The record that lies beside a file, if any."""
    place = sidecar(path)
    if not place.is_file() or place.is_symlink():
        return None
    descriptor = files.open_for_reading(place)
    try:
        size = min(files.size(descriptor), LARGEST_RECORD + 1)
        data = files.read(descriptor, 0, size)
    finally:
        files.close(descriptor)
    return decode(data.decode("utf-8", errors="replace"), place)
