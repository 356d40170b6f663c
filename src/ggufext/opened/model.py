"""Opening a file for an edit: one descriptor, one lock, one lease, and what its header says."""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from ggufext.errors import EditError, GgufextError, HeaderError, command
from ggufext.header.frequencies import read_factors
from ggufext.header.header import parse_header, read_header_from
from ggufext.header.loading import refuse_unloadable
from ggufext.header.model import model_facts
from ggufext.header.shards import first_shard, later_shards
from ggufext.header.training import trained_facts
from ggufext.opened import guards, history, restoration
from ggufext.opened import journal as journals
from ggufext.opened.history import copied_extension

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from ggufext.errors import JournalError
    from ggufext.header.header import Header, TensorInfo
    from ggufext.header.model import ModelFacts
    from ggufext.opened.files import FileSystem
    from ggufext.opened.history import Copied, History, Originals
    from ggufext.opened.patch import Patch


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
        The header before that edit: what an undo leads back to.
    undo_patch : Patch or None
        Back to the original; None without a record.
    copied : Copied or None
        An extension of ours in the file that this one was copied from.
    unextended : Header
        The header before either extension: what plans start from.
    name : Path or str
        As the user named it, for commands in messages.
    exclusive : bool
        Whether nobody else can have the file open, as far as an edit has to know.
    in_use : bool
        Whether another program has it open, as far as an edit has to know.
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
    copied: Copied | None
    unextended: Header
    name: Path | str
    exclusive: bool
    in_use: bool
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
        later = self.later_shards()
        factors = self._factors(self.header, later, self._data)
        facts = model_facts(self.header, factors=factors, later_shards=later)
        refuse_unloadable(self.header, facts, later_shards=later)
        return facts

    def original_facts(
        self, *, train_length: int | None = None, train_freq_base: float | None = None
    ) -> ModelFacts:
        """Facts of the model as it was trained; parameters of `trained_facts`.

        Raises
        ------
        HeaderError, PlanError
            As `trained_facts`, and ``would_not_load``.
        """
        later = self.later_shards()
        facts = self.trained_facts(later, train_length, train_freq_base)
        refuse_unloadable(self.unextended, facts, later_shards=later)
        return facts

    def trained_facts(
        self,
        later: tuple[Header, ...],
        train_length: int | None = None,
        train_freq_base: float | None = None,
    ) -> ModelFacts:
        """As `original_facts`, with the other parts read, and nobody judges if the model loads."""
        before, record = dict(self.earlier_tensors), self.copied or self.history

        def data(tensor: TensorInfo) -> bytes:
            return before.get(tensor.name) or self._data(tensor)

        return trained_facts(
            self.unextended,
            train_length=train_length,
            train_freq_base=train_freq_base,
            later_shards=later,
            factors=self._factors(self.unextended, later, data),
            added=self.copied.added if self.copied else (),
            recorded=(record.method, record.target_length) if record else None,
        )

    @property
    def earlier_keys(self) -> tuple[tuple[str, bytes | None], ...]:
        """Entries that it replaced; None for a key that it added."""
        if self.copied is not None:
            return self.copied.keys
        return self.history.original if self.history else ()

    @property
    def earlier_tensors(self) -> Originals:
        """Factor tensors that it overwrote, as they were; None for one that is not the model's."""
        if self.copied is not None:
            return self.copied.tensors
        return self.history.tensors if self.history else ()

    @staticmethod
    def _factors(
        header: Header, later: tuple[Header, ...], data: Callable[[TensorInfo], bytes]
    ) -> tuple[tuple[str, tuple[float, ...]], ...]:
        factors = read_factors(header, data)
        for shard in later:
            factors += read_factors(shard, partial(_data_of, shard))
        return factors

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
    files: FileSystem,
    path: Path,
    *,
    writing: bool,
    force: bool = False,
    name: Path | str | None = None,
) -> Iterator[OpenModel]:
    """Open a model; for writing, as its sole user.

    Parameters
    ----------
    path : Path
        A later part of a split model stands for the first.
    writing : bool
        Lock the file and take a lease; nobody else may have it open.
    force : bool
        Go on although someone has the file open; `OpenModel.in_use` says so.
    name : Path or str, optional
        What the user called it, where that is not `path`: a symbolic link, ``ollama:NAME``.

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
    name = name or path
    with exclusively(files, path, writing=writing) as (descriptor, refusal):
        if refusal == errno.EAGAIN and not force:
            raise in_use(path, "--force, which puts a new file in the place of the open one")
        try:
            header = read_header_from(descriptor, path=path)
            journal = journals.read(files, path)
            interrupted = journal is not None and journals.belongs(files, descriptor, journal)
        except HeaderError as error:
            interrupted = error.code == "interrupted_edit"
            if not interrupted:
                raise
        if interrupted:
            raise HeaderError(
                code="interrupted_edit",
                path=path,
                message="an edit of this file was interrupted; "
                f"run `{command('recover', name)}` first",
            )
        guards.check_first_shard(header, path)
        header_bytes = _header_bytes(files, descriptor, header)
        # Values come from memory from here on: opening the file again would break the lease.
        header = parse_header(header_bytes, file_size=header.file_size, path=path)
        read = partial(files.read, descriptor)
        found, complaint = restoration.find(files, path, header, header_bytes, read)
        copied = _copied(header, header_bytes) if found is None else None
        original = found.header if found else header
        yield OpenModel(
            path=path,
            descriptor=descriptor,
            header=header,
            header_bytes=header_bytes,
            history=found.record if found else None,
            complaint=complaint,
            original=original,
            original_bytes=found.header_bytes if found else header_bytes,
            undo_patch=found.patch if found else None,
            copied=copied,
            unextended=copied.original if copied else original,
            name=name,
            exclusive=refusal == 0,
            in_use=refusal == errno.EAGAIN,
            read=read,
        )


def _header_bytes(files: FileSystem, descriptor: int, header: Header) -> bytes:
    """The file's first `header.data_offset` bytes."""
    content = files.read(descriptor, 0, header.data_offset)
    if len(content) != header.data_offset:
        raise HeaderError(
            code="truncated",
            path=header.path,
            message=f"the data would start at byte {header.data_offset:,}, and the file ends at "
            f"byte {len(content):,}: get it again",
        )
    return content


def _copied(header: Header, header_bytes: bytes) -> Copied | None:
    try:
        record = history.in_file(header)
    except GgufextError:
        return None
    return copied_extension(header, header_bytes, record) if record else None


@contextmanager
def exclusively(files: FileSystem, path: Path, *, writing: bool) -> Iterator[tuple[int, int]]:
    """Descriptor of a file, and 0 where nobody else has it open.

    Else the error with which the system refused a lease: EAGAIN where somebody has, another one
    where nobody can tell.

    Raises
    ------
    EditError
        ``in_use``, ``changed_meanwhile``.
    """
    if not writing:
        descriptor = files.open_for_reading(path)
        try:
            yield descriptor, 0  # nothing is written, so nobody is in the way
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
            yield descriptor, refusal
    finally:
        files.close(descriptor)


def in_use(path: Path, otherwise: str) -> EditError:
    """What to say of a file that another program has open, and what else than waiting helps."""
    return EditError(
        code="in_use",
        path=path,
        message="is open in another program (llama.cpp maps models it has loaded); close that "
        f"program, or {otherwise}",
    )
