"""The header of a GGUF file: bytes understood, nothing interpreted."""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass, replace
from enum import IntEnum
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from ggufext.errors import HeaderError, command, of_system
from ggufext.system import system

try:
    from ggufext import _core as reader
except ImportError:  # installed without a compiler
    from ggufext.header import pure as reader  # type: ignore[no-redef]

if TYPE_CHECKING:
    from collections.abc import Mapping


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
        Its name.
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
    _index: reader.HeaderIndex
    _source: _FileSource | _MemorySource
    _key_numbers: Mapping[str, int]
    _tensors: tuple[TensorInfo, ...] | None

    def in_memory(self, data: bytes, fd: int) -> Header:
        """The same header, whose values come from its bytes: no file is opened for them.

        Parameters
        ----------
        data : bytes
            The file's first data_offset bytes, read after the header.
        fd : int
            Through which both were read.

        Raises
        ------
        HeaderError
            ``changed_meanwhile``.
        """
        if _FileSource.of(fd, self.path) != self._source:
            raise _changed(self.path)
        return replace(self, _source=_MemorySource(data))

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
            return reader.decode_value(
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


class _MemorySource(NamedTuple):
    """A header that was parsed from memory."""

    data: bytes

    def value(self, entry: KeyValue) -> Value:
        """Value of a key."""
        return reader.decode_value(
            self.data[entry.value_start : entry.end],
            value_type=entry.type,
            element_type=entry.element_type,
            count=entry.count,
        )


class _FileSource(NamedTuple):
    """A file as it was when its header was read."""

    path: Path | None
    device: int
    inode: int
    size: int
    mtime_ns: int

    @classmethod
    def of(cls, fd: int, path: Path | None) -> _FileSource:
        """Describe the file behind a descriptor."""
        status = os.fstat(fd)
        return cls(path, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)

    def value(self, entry: KeyValue) -> Value:
        """Value of a key, from the file opened again.

        Raises
        ------
        HeaderError
            ``changed_meanwhile``, ``no_path`` or ``unreadable``, as `Header.value` says.
        """
        if self.path is None:
            raise HeaderError(
                code="no_path",
                message="this value is too large to be kept, and the file that holds it has no "
                "name here: read the header with its path",
            )
        fd = open_regular(self.path)
        try:
            if _FileSource.of(fd, self.path) != self:
                raise _changed(self.path)
            return reader.read_value(
                fd,
                start=entry.value_start,
                end=entry.end,
                value_type=entry.type,
                element_type=entry.element_type,
                count=entry.count,
            )
        finally:
            os.close(fd)


def _changed(path: Path | None) -> HeaderError:
    return HeaderError(
        code="changed_meanwhile",
        path=path,
        message="the file is not the one whose header was read: read it again when nothing writes "
        "to it",
    )


def open_regular(path: Path) -> int:
    """Open for reading, without waiting for a pipe's other end.

    Raises
    ------
    HeaderError
        As `check_regular`.
    """
    check_regular(path)
    try:
        return system.open_for_reading(path)
    except OSError as error:
        raise _unreadable(error, path) from error


def check_regular(path: Path) -> None:
    """Refuse what is no file: opening a pipe would wait for ever.

    Raises
    ------
    HeaderError
        ``unreadable``, or ``not_gguf`` for folders, pipes and devices.
    """
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise _unreadable(error, path) from error
    except ValueError as error:  # a zero byte, half a character
        raise HeaderError(
            code="unreadable", message=f"no file can have this name ({error})", path=path
        ) from error
    if stat.S_ISREG(mode):
        return
    found = "a directory" if stat.S_ISDIR(mode) else "a pipe or device"
    raise HeaderError(
        code="not_gguf", message=f"found {found}, expected a GGUF file: name the file", path=path
    )


def _unreadable(error: OSError, path: Path) -> HeaderError:
    return HeaderError(code="unreadable", message=of_system(error).message, path=path)


def read_header(path: Path | str) -> Header:
    """Read and check the header of a GGUF file; the file is closed again.

    Parameters
    ----------
    path : Path or str

    Returns
    -------
    Header

    Raises
    ------
    HeaderError
        With a code of its own for everything that llama.cpp would refuse, and ``unreadable``
        when the file cannot be opened.
    """
    path = Path(path)
    fd = open_regular(path)
    try:
        return read_header_from(fd, path=path)
    finally:
        os.close(fd)


def read_header_from(fd: int, *, path: Path | None = None) -> Header:
    """Read and check a header through a descriptor, which stays open and keeps its position.

    Parameters
    ----------
    fd : int
        Open for reading.
    path : Path, optional
        Where the file is: named in errors, and opened again for values of more than 4 KiB.

    Raises
    ------
    HeaderError
        As `read_header`.
    """
    try:
        source = _FileSource.of(fd, path)
        return _header(reader.HeaderIndex.open(fd), path=path, source=source)
    except HeaderError as error:
        error.path = path
        if path is not None:
            _add_neighbours(error, fd, path)
        raise


def parse_header(data: bytes, *, file_size: int, path: Path | None = None) -> Header:
    """Check a header in memory: one that an edit is about to write.

    Parameters
    ----------
    data : bytes
        Start of the file, at least the whole header.
    file_size : int
        Bytes that the whole file has, or will have.
    path : Path, optional
        The file that the bytes belong to: named in errors.

    Raises
    ------
    HeaderError
        As `read_header`; ``front_too_short`` where the header goes on behind `data`.
    """
    data = bytes(data)
    try:
        index = reader.HeaderIndex.parse(data, file_size=file_size)
    except HeaderError as error:
        error.path = path
        raise
    return _header(index, path=path, source=_MemorySource(data))


def _header(
    index: reader.HeaderIndex, *, path: Path | None, source: _FileSource | _MemorySource
) -> Header:
    entries = [
        KeyValue(
            key,
            ValueType(type_),
            None if element_type is None else ValueType(element_type),
            count,
            start,
            value_start,
            end,
        )
        for key, type_, element_type, count, start, value_start, end in index.key_spans()
    ]
    return Header(
        path=path,
        version=index.version,
        alignment=index.alignment,
        file_size=index.file_size,
        keys=MappingProxyType({entry.key: entry for entry in entries}),
        tensor_count=index.tensor_count,
        keys_end=index.keys_end,
        infos_end=index.infos_end,
        data_offset=index.data_offset,
        data_end=index.data_end,
        _index=index,
        _source=source,
        _key_numbers={entry.key: number for number, entry in enumerate(entries)},
        _tensors=None,
    )


def _add_neighbours(error: HeaderError, fd: int, path: Path) -> None:
    """Let files beside this one explain the error."""
    emptied = error.code == "not_gguf" and system.read_at(fd, 4, 0) == bytes(4)
    if emptied and companion(Path(os.path.realpath(path)), JOURNAL_SUFFIX).exists():
        error.code = "interrupted_edit"
    if error.code == "interrupted_edit":
        error.message = (
            f"an edit of this file was interrupted: run `{command('recover', path)}`, which "
            "finishes the edit or restores the old file"
        )
        return
    unfinished = [path.name + suffix for suffix in (".part", ".incomplete", ".aria2")]
    present = [name for name in unfinished if os.path.exists(path.with_name(name))]  # noqa: PTH110
    if present:
        error.message += f" ({', '.join(present)} beside it: the download is not finished)"
