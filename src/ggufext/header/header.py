"""The header of a GGUF file: bytes understood, nothing interpreted."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

from ggufext import _core
from ggufext.errors import HeaderError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from ggufext.header.source import FileSource, MemorySource

#: First bytes of every GGUF file.
MAGIC = b"GGUF"

#: What stands in place of the magic while an edit is under way: no loader accepts the file.
POISONED_MAGIC = b"GGUX"

#: ``model.gguf`` is being edited while ``model.gguf.ggufext-journal`` lies beside it.
JOURNAL_SUFFIX = ".ggufext-journal"

#: Longest name of a file, bytes (NAME_MAX of Linux), less what a draft of one adds.
_LONGEST_NAME = 255 - len(".new")

#: A scalar or string value of a key, or the decoded elements of an array.
Scalar = int | float | bool | str
Value = Scalar | tuple[Scalar, ...]


def companion(path: Path, suffix: str) -> Path:
    """Where a file lies that belongs to a model: beside it, under its name and a suffix.

    Of a name that would be too long then only the start is taken, with a hash of the whole.
    """
    name = os.fsencode(path.name)
    room = _LONGEST_NAME - len(suffix)
    if len(name) <= room:
        # Unlike with_name this takes the names of folders too, which have to be refused by name.
        return path.parent / (path.name + suffix)
    digest = "~" + hashlib.sha256(name).hexdigest()[:16]
    start = name[: room - len(digest)].decode("utf-8", errors="ignore")
    return path.with_name(start + digest + suffix)


class ValueType(IntEnum):
    """Type of a metadata value, as numbered in GGUF files."""

    UINT8 = 0
    INT8 = 1
    UINT16 = 2
    INT16 = 3
    UINT32 = 4
    INT32 = 5
    FLOAT32 = 6
    BOOL = 7
    STRING = 8
    ARRAY = 9
    UINT64 = 10
    INT64 = 11
    FLOAT64 = 12


@dataclass(frozen=True, slots=True)
class KeyValue:
    """One metadata entry: where it lies; its value is decoded on demand by `Header.value`.

    Attributes
    ----------
    key : str
    type : ValueType
        ``ARRAY`` for arrays; then `element_type` says of what.
    element_type : ValueType or None
        Type of an array's elements, None for scalars and strings.
    count : int
        Elements of an array, 1 otherwise.
    start, value_start, end : int
        Bytes in the file: of the entry (the length of its key), of the payload behind the type
        (for arrays: behind element type and count), and of the next entry.
    """

    key: str
    type: ValueType
    element_type: ValueType | None
    count: int
    start: int
    value_start: int
    end: int


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor's description.

    Attributes
    ----------
    name : str
    shape : tuple of int
        Elements per dimension, ggml order (row length first), at most 4 entries; none: one element.
    type : str
        ggml's name of the type: ``"F32"``, ``"Q8_0"`` …
    offset : int
        Bytes from the start of the data.
    size : int
        Bytes of the tensor, without padding.
    """

    name: str
    shape: tuple[int, ...]
    type: str
    offset: int
    size: int


@dataclass(frozen=True, slots=True, eq=False)
class Header:
    """A header that was checked completely: every rule of the format and of llama.cpp holds.

    Made by `read_header`, `read_header_from` and `parse_header`.

    Attributes
    ----------
    path : Path or None
        The file, None when it was read through a nameless descriptor or from memory.
    version : int
        2 or 3.
    alignment : int
        Bytes; a power of two up to 1 MiB.
    file_size : int
        Bytes of the whole file.
    keys : Mapping of str to KeyValue
        In the order of the file.
    tensor_count : int
    keys_end, infos_end : int
        Bytes in the file: end of the metadata (there the tensor descriptions start), and end of
        those.
    data_offset : int
        First byte of tensor data: `infos_end` padded to `alignment`; without tensors, unpadded.
    data_end : int
        End of the last tensor, without padding; `data_offset` without tensors.
    """

    path: Path | None
    version: int
    alignment: int
    file_size: int
    keys: Mapping[str, KeyValue]
    tensor_count: int
    keys_end: int
    infos_end: int
    data_offset: int
    data_end: int
    _index: _core.HeaderIndex
    _source: FileSource | MemorySource
    _key_numbers: Mapping[str, int]
    _tensors: tuple[TensorInfo, ...] | None

    @property
    def key_count(self) -> int:
        """Number of keys."""
        return len(self.keys)

    @property
    def tensors(self) -> tuple[TensorInfo, ...]:
        """Descriptions of the tensors, in the order of the file and of their data."""
        if self._tensors is None:  # some files have thousands, and few callers look
            tensors = tuple(TensorInfo(*fields) for fields in self._index.tensor_spans())
            object.__setattr__(self, "_tensors", tensors)
            return tensors
        return self._tensors

    def value(self, key: str) -> Value:
        """Value of a key that is there.

        Values of up to 4 KiB were kept when the header was read; a larger one is read from the
        file now, which must still be the one whose header this is.

        Parameters
        ----------
        key : str

        Returns
        -------
        int, float, bool, str or tuple of these
            Bytes in strings that are no UTF-8 become surrogates: encoding with
            ``"surrogateescape"`` gives the stored bytes back.

        Raises
        ------
        KeyError
            If there is no such key.
        HeaderError
            ``changed_meanwhile`` if the file was changed or replaced; ``no_path`` if it was read
            through a nameless descriptor; ``unreadable`` if it cannot be opened any more.
        """
        entry = self.keys[key]
        payload = self._index.kept(self._key_numbers[key])
        try:
            if payload is None:
                return self._source.value(entry)
            return _core.decode_value(
                payload, value_type=entry.type, element_type=entry.element_type, count=entry.count
            )
        except HeaderError as error:
            error.path, error.field = self.path, key
            raise

    def integer(self, key: str, *, value_type: ValueType = ValueType.UINT32) -> int | None:
        """Whole number under a key, None when there is no such key.

        llama.cpp insists on the exact type of every key it reads, and so does this.

        Raises
        ------
        HeaderError
            ``wrong_type`` if the key has another type than `value_type`.
        """
        value = self._typed(key, value_type)
        return value if isinstance(value, int) else None

    def number(self, key: str, *, value_type: ValueType = ValueType.FLOAT32) -> float | None:
        """Real number under a key; as `integer`."""
        value = self._typed(key, value_type)
        return value if isinstance(value, float) else None

    def boolean(self, key: str) -> bool | None:
        """Truth value under a key; as `integer`."""
        value = self._typed(key, ValueType.BOOL)
        return value if isinstance(value, bool) else None

    def string(self, key: str) -> str | None:
        """Text under a key; as `integer`."""
        value = self._typed(key, ValueType.STRING)
        return value if isinstance(value, str) else None

    def array(self, key: str, *element_types: ValueType) -> tuple[Scalar, ...] | None:
        """Elements of the array under a key, None when there is no such key.

        Parameters
        ----------
        key : str
        *element_types : ValueType
            Those that are allowed; llama.cpp often takes both INT32 and UINT32.

        Raises
        ------
        HeaderError
            ``wrong_type`` if the key holds no array, or one of other elements.
        """
        entry = self.keys.get(key)
        if entry is None:
            return None
        if entry.element_type not in element_types:
            expected = " or ".join(f"ARRAY of {element.name}" for element in element_types)
            raise self._wrong_type(entry, expected)
        value = self.value(key)
        return value if isinstance(value, tuple) else None

    def _typed(self, key: str, value_type: ValueType) -> Value | None:
        entry = self.keys.get(key)
        if entry is None:
            return None
        if entry.type is not value_type:
            raise self._wrong_type(entry, value_type.name)
        return self.value(key)

    def _wrong_type(self, entry: KeyValue, expected: str) -> HeaderError:
        found = entry.type.name
        if entry.element_type is not None:
            found += f" of {entry.element_type.name}"
        return HeaderError(
            code="wrong_type",
            message=f"found type {found}, expected {expected}, as llama.cpp does: write the key "
            "again with that type, or get another version of the file",
            path=self.path,
            field=entry.key,
            offset=entry.start,
        )
