"""From a file, a descriptor or memory to a Header."""

from __future__ import annotations

import os
from pathlib import Path
from types import MappingProxyType

from ggufext import _core
from ggufext.errors import HeaderError, command
from ggufext.header.header import JOURNAL_SUFFIX, Header, KeyValue, ValueType, companion
from ggufext.header.source import FileSource, MemorySource, open_file


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
    fd = open_file(path)
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
        source = FileSource.of(fd, path)
        return _header(_core.HeaderIndex.open(fd), path=path, source=source)
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
        index = _core.HeaderIndex.parse(data, file_size=file_size)
    except HeaderError as error:
        error.path = path
        raise
    return _header(index, path=path, source=MemorySource(data))


def _header(
    index: _core.HeaderIndex, *, path: Path | None, source: FileSource | MemorySource
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
    emptied = error.code == "not_gguf" and os.pread(fd, 4, 0) == bytes(4)
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
