"""Opening a file for an edit: one descriptor, one lock, one lease, and what its header says."""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from ggufext.editing import guards, restoration
from ggufext.editing import journal as journals
from ggufext.errors import EditError, HeaderError
from ggufext.header.factors import read_factors
from ggufext.header.model import model_facts
from ggufext.header.reading import parse_header, read_header_from
from ggufext.header.shards import first_shard, later_shards

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from ggufext.editing.files import FileSystem
    from ggufext.editing.history import History
    from ggufext.editing.patch import Patch
    from ggufext.errors import JournalError
    from ggufext.header.header import Header, TensorInfo
    from ggufext.header.model import ModelFacts


#: Largest header that is held in memory, bytes. A vocabulary of 262,144 tokens takes about 16 MB.
LARGEST_HEADER = 128 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class OpenModel:
    """A model file open under one descriptor.

    Attributes
    ----------
    path : Path
        Of a split model the first part.
    descriptor : int
    header : Header
    header_bytes : bytes
        The file's first `header.data_offset` bytes.
    history : History or None
        Of an earlier edit, from the file or from beside it; one that does not fit counts as none.
    complaint : JournalError or None
        What is wrong with a record that does not fit.
    original, original_bytes : Header, bytes
        The header before that edit: what plans start from.
    undo_patch : Patch or None
        Back to the original; None without a record.
    exclusive : bool
        Whether nobody else can have the file open, as far as an edit has to know.
    read : callable
        Reads (offset, size) of the file as it is.
    """

    path: Path
    descriptor: int
    header: Header
    header_bytes: bytes
    history: History | None
    complaint: JournalError | None
    original: Header
    original_bytes: bytes
    undo_patch: Patch | None
    exclusive: bool
    read: Callable[[int, int], bytes]

    def later_shards(self) -> tuple[Header, ...]:
        """Headers of a split model's other parts; see `ggufext.header.shards.later_shards`."""
        return later_shards(self.header)

    def facts(self) -> ModelFacts:
        """Facts of the model in the file as it is; raises as `model_facts` does."""
        return self._facts(self.header, self._data)

    def original_facts(self, *, train_length: int | None = None) -> ModelFacts:
        """Facts of the original model, before edits of ours; raises as `model_facts` does."""
        before = dict(self.history.tensors) if self.history else {}

        def data(tensor: TensorInfo) -> bytes:
            return before.get(tensor.name) or self._data(tensor)

        return self._facts(self.original, data, train_length)

    def _facts(
        self,
        header: Header,
        data: Callable[[TensorInfo], bytes],
        train_length: int | None = None,
    ) -> ModelFacts:
        later = self.later_shards()
        factors = read_factors(header, data)
        for shard in later:
            factors += read_factors(shard, partial(_data_of, shard))
        return model_facts(header, train_length=train_length, factors=factors, later_shards=later)

    def _data(self, tensor: TensorInfo) -> bytes:
        # Offsets count from the start of the data, which an edit moves as a whole.
        return self.read(self.header.data_offset + tensor.offset, tensor.size)


def _data_of(shard: Header, tensor: TensorInfo) -> bytes:
    """A tensor's data in another file of a split model."""
    assert shard.path is not None
    with shard.path.open("rb") as file:
        file.seek(shard.data_offset + tensor.offset)
        return file.read(tensor.size)


@contextmanager
def open_model(
    files: FileSystem, path: Path, *, writing: bool, force: bool = False
) -> Iterator[OpenModel]:
    """Open a model; for writing, as its sole user.

    Parameters
    ----------
    path : Path
        A later part of a split model stands for the first.
    writing : bool
        Lock the file and take a lease; nobody else may have it open.
    force : bool
        Go on although someone has the file open.

    Raises
    ------
    EditError
        ``in_use``, and the guards' refusals.
    HeaderError
        ``interrupted_edit`` and every fault of the header.
    """
    path = first_shard(path)
    if writing:
        guards.check_writable(path)
    with exclusively(files, path, writing=writing, force=force) as (descriptor, exclusive):
        header = read_header_from(descriptor, path=path)
        journal = journals.read(files, path)
        if journal is not None and journals.belongs(files, descriptor, journal):
            raise HeaderError(
                code="interrupted_edit",
                path=path,
                message="an edit of this file was interrupted; "
                f"run `ggufext recover {path.name}` first",
            )
        guards.check_first_shard(header, path)
        header_bytes = _header_bytes(files, descriptor, header)
        # Values come from memory from here on: opening the file again would break the lease.
        header = parse_header(header_bytes, file_size=header.file_size, path=path)
        read = partial(files.read, descriptor)
        found, complaint = restoration.find(files, path, header, header_bytes, read)
        yield OpenModel(
            path=path,
            descriptor=descriptor,
            header=header,
            header_bytes=header_bytes,
            history=found.record if found else None,
            complaint=complaint,
            original=found.header if found else header,
            original_bytes=found.header_bytes if found else header_bytes,
            undo_patch=found.patch if found else None,
            exclusive=exclusive,
            read=read,
        )


def _header_bytes(files: FileSystem, descriptor: int, header: Header) -> bytes:
    """The file's first `header.data_offset` bytes."""
    if header.data_offset > LARGEST_HEADER:
        raise HeaderError(
            code="header_too_large",
            path=header.path,
            message=f"the header takes {header.data_offset:,} bytes, and no more than "
            f"{LARGEST_HEADER:,} are read into memory for an edit; no model needs as much: get "
            "the file again",
        )
    content = files.read(descriptor, 0, header.data_offset)
    if len(content) != header.data_offset:
        raise HeaderError(
            code="truncated",
            path=header.path,
            message=f"the data would start at byte {header.data_offset:,}, and the file ends at "
            f"byte {len(content):,}: get it again",
        )
    return content


@contextmanager
def exclusively(
    files: FileSystem, path: Path, *, writing: bool, force: bool
) -> Iterator[tuple[int, bool]]:
    """Descriptor of a file and whether nobody else can have it open.

    Raises
    ------
    EditError
        ``in_use``, ``changed_meanwhile``.
    """
    if not writing:
        descriptor = files.open_for_reading(path)
        try:
            yield descriptor, True  # nothing is written, so nobody is in the way
        finally:
            files.close(descriptor)
        return
    descriptor = files.open_for_editing(path)
    try:
        if not files.lock(descriptor):
            raise EditError(
                code="in_use",
                path=path,
                message="is being edited by another run of ggufext; wait for it",
            )
        if not os.path.samestat(os.fstat(descriptor), path.stat()):
            raise EditError(
                code="changed_meanwhile",
                path=path,
                message="was replaced by another file while it was opened; try again",
            )
        with files.lease(descriptor) as refusal:
            if refusal == errno.EAGAIN and not force:
                raise EditError(
                    code="in_use",
                    path=path,
                    message="is open in another program (llama.cpp maps models it has loaded); "
                    "close that program, or --force",
                )
            yield descriptor, refusal == 0 or force
    finally:
        files.close(descriptor)
