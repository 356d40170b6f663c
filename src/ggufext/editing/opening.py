"""Opening a file for an edit: one descriptor, one lock, one lease, and what its header says."""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from ggufext.editing import guards, history
from ggufext.editing import journal as journals
from ggufext.errors import EditError, GgufextError, HeaderError
from ggufext.header.factors import read_factors
from ggufext.header.loading import refuse_unloadable
from ggufext.header.model import model_facts
from ggufext.header.reading import parse_header, read_header_from
from ggufext.header.shards import first_shard, later_shards

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from ggufext.editing.files import FileSystem
    from ggufext.editing.history import History
    from ggufext.header.header import Header, TensorInfo
    from ggufext.header.model import ModelFacts


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
        Of an earlier edit, from the file or from the record beside it.
    original : Header
        The header before that edit: what plans start from.
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
    original: Header
    exclusive: bool
    read: Callable[[int, int], bytes]

    def later_shards(self) -> tuple[Header, ...]:
        """Headers of a split model's other parts; see `ggufext.header.shards.later_shards`."""
        return later_shards(self.header)

    def facts(self) -> ModelFacts:
        """Facts of the model in the file as it is.

        Raises
        ------
        HeaderError, PlanError
            As `model_facts`, and ``would_not_load``.
        """
        return self._facts(self.header, self._data)

    def original_facts(self, *, train_length: int | None = None) -> ModelFacts:
        """Facts of the original model, before edits of ours; raises as `facts` does."""
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
        facts = model_facts(header, train_length=train_length, factors=factors, later_shards=later)
        refuse_unloadable(header, facts, later_shards=later)
        return facts

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
        if journals.path_for(path).exists():
            raise HeaderError(
                code="interrupted_edit",
                path=path,
                message="an edit of this file was interrupted; "
                f"run `ggufext recover {path.name}` first",
            )
        guards.check_first_shard(header, path)
        header_bytes = files.read(descriptor, 0, header.data_offset)
        # Values come from memory from here on: opening the file again would break the lease.
        header = parse_header(header_bytes, file_size=header.file_size, path=path)
        read = partial(files.read, descriptor)
        earlier, original = _earlier_edit(files, path, header, header_bytes, read)
        yield OpenModel(
            path=path,
            descriptor=descriptor,
            header=header,
            header_bytes=header_bytes,
            history=earlier,
            original=original,
            exclusive=exclusive,
            read=read,
        )


def _earlier_edit(
    files: FileSystem,
    path: Path,
    header: Header,
    header_bytes: bytes,
    read: Callable[[int, int], bytes],
) -> tuple[History | None, Header]:
    """The record that leads back to the original, and the original's header.

    A record that belongs to another file (tools copy unknown keys) counts as none.
    """
    try:
        record = history.in_file(header) or history.beside(files, path)
        if record is not None:
            return record, history.original_header(header, header_bytes, record, read)
    except GgufextError:
        pass
    return None, header


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
