"""The opened model of a command: read once, then handed on."""

from __future__ import annotations

import errno
import hashlib
import os
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache, cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

from ggufext.errors import EditError, GgufextError, HeaderError, PlanError, command
from ggufext.header import rope_keys
from ggufext.header.facts import facts_hash, model_facts
from ggufext.header.frequencies import read_factors
from ggufext.header.header import read_header_from
from ggufext.header.loading import refuse_unloadable
from ggufext.header.shards import NUMBER_KEY, TENSOR_COUNT_KEY, first_shard, later_shards
from ggufext.header.training import trained_facts
from ggufext.locating.names import is_remote, local_path
from ggufext.opened import guards, history
from ggufext.opened import journal as journals
from ggufext.opened.files import FileSystem
from ggufext.opened.restoration import Original, copied_extension, find_restored, with_entries
from ggufext.planning.request import check_model

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from ggufext.errors import JournalError
    from ggufext.header.facts import ModelFacts
    from ggufext.header.header import Header, TensorInfo
    from ggufext.locating.remote import RemoteModel
    from ggufext.opened.history import History, Originals
    from ggufext.opened.restoration import Copied, Restored
    from ggufext.planning.evidence import Evidence
    from ggufext.planning.request import PlanRequest


@dataclass(frozen=True, kw_only=True)
class OpenModel:
    """A model whose header was read, here or on another machine.

    Attributes
    ----------
    path : Path or str
        Of a split model the first part; the address of a remote file.
    header : Header
    header_bytes : bytes
        The file's first `header.data_offset` bytes.
    restored : Restored or None
        What the record of an earlier edit leads back to; None where none fits.
    complaint : JournalError or None
        What is wrong with a record that does not fit.
    copied : Copied or None
        An extension of ours in the file that this one was copied from.
    data : callable or None
        Reads a factor tensor; None where a server sends no parts of its file.
    """

    path: Path | str
    header: Header
    header_bytes: bytes
    restored: Restored | None
    complaint: JournalError | None
    copied: Copied | None
    data: Callable[[TensorInfo], bytes] | None

    @property
    def history(self) -> History | None:
        """Record of an earlier edit, from the file or from beside it."""
        return self.restored.record if self.restored else None

    @property
    def original_header(self) -> Header:
        """The header before the first edit."""
        return self.restored.original.header if self.restored else self.header

    @property
    def is_extended(self) -> bool:
        """Whether the file holds an extension of ours."""
        extended = self.history is not None and self.history.method is not None
        return extended or self.copied is not None

    @cached_property
    def unextended(self) -> Header:
        """The header before any extension of ours, with what was set: what plans start from."""
        if self.copied is not None:
            return self.copied.original
        if self.restored is None or not self.is_extended:
            return self.header
        original = self.restored.original
        if not self.set_entries:
            return original.header
        return with_entries(original.header, original.header_bytes, self.set_entries)

    @cached_property
    def set_entries(self) -> dict[str, bytes | None]:
        """Entries of the model that were set and are in its record; None for a key that went.

        Those that an extension has written over are as they were before it.
        """
        if self.history is None:
            return {}
        of_extension = extension_keys(self.header) if self.is_extended else frozenset()
        found = {
            key: self.entry(key) for key, _ in self.history.original if key not in of_extension
        }
        before = dict(self.history.original)
        return {key: entry for key, entry in found.items() if entry != before[key]} | dict(
            self.history.set_before
        )

    def entry(self, key: str) -> bytes | None:
        """The entry of a key as the file holds it; None where there is no such key."""
        found = self.header.keys.get(key)
        return None if found is None else self.header_bytes[found.start : found.end]

    @cached_property
    def later_shards(self) -> tuple[Header, ...]:
        """Headers of a split model's other parts; see `ggufext.header.shards.later_shards`.

        Those of a remote one are not read.
        """
        return later_shards(self.header)

    @cached_property
    def facts(self) -> ModelFacts:
        """Facts of the model as it is.

        Raises
        ------
        HeaderError, PlanError
            As `model_facts`, and ``would_not_load``.
        """
        later = self.later_shards
        factors = self._factors(self.header, {})
        facts = model_facts(self.header, factors=factors, later_shards=later)
        refuse_unloadable(self.header, facts, later_shards=later)
        return facts

    def original_facts(self, request: PlanRequest | None = None) -> ModelFacts:
        """Facts that a plan starts from: those of the training, before any extension.

        Parameters
        ----------
        request : PlanRequest, optional
            Its `train_length` and `train_freq_base` count, and its recipe must have been made for
            this model unless it is forced.

        Raises
        ------
        HeaderError, PlanError
            As `trained_facts`; ``would_not_load``, ``other_model``.
        """
        length, base = (request.train_length, request.train_freq_base) if request else (None, None)
        facts = self._loadable(length, base)
        if request is not None and request.recipe is not None and not request.force:
            check_model(request.recipe, facts_hash(self.unextended, facts))
        return facts

    def evidence(self, request: PlanRequest) -> Evidence | None:
        """What was measured of a request on this very model; raises as `original_facts`."""
        recipe, facts = request.recipe, self.original_facts(request)
        if recipe is None or recipe.facts_hash != facts_hash(self.unextended, facts):
            return None
        return request.evidence

    @cached_property
    def _loadable(self) -> Callable[[int | None, float | None], ModelFacts]:
        return cache(self._judged)

    def _judged(self, train_length: int | None, train_freq_base: float | None) -> ModelFacts:
        facts = self.trained_facts(train_length, train_freq_base)
        refuse_unloadable(self.unextended, facts, later_shards=self.later_shards)
        return facts

    def trained_facts(
        self, train_length: int | None = None, train_freq_base: float | None = None
    ) -> ModelFacts:
        """As `original_facts`, and nobody judges whether llama.cpp would load the model.

        Parameters are those of `ggufext.header.training.trained_facts`.
        """
        record = self.copied or self.history
        recorded = None
        if record is not None and record.method is not None and record.target_length is not None:
            recorded = (record.method, record.target_length)
        return trained_facts(
            self.unextended,
            train_length=train_length,
            train_freq_base=train_freq_base,
            later_shards=self.later_shards,
            factors=self._factors(self.unextended, dict(self.earlier_tensors)),
            added=self.copied.added if self.copied else (),
            recorded=recorded,
        )

    @property
    def earlier_keys(self) -> tuple[tuple[str, bytes | None], ...]:
        """Entries that an extension of ours replaced; None for a key that it added."""
        if self.copied is not None:
            return self.copied.keys
        if self.history is None or not self.is_extended:
            return ()
        written, by_hand = extension_keys(self.header), dict(self.history.set_before)
        return tuple(
            (key, by_hand.get(key, entry)) for key, entry in self.history.original if key in written
        )

    @property
    def earlier_tensors(self) -> Originals:
        """Factor tensors that it overwrote, as they were; None for one that is not the model's."""
        if self.copied is not None:
            return self.copied.tensors
        return self.history.tensors if self.history else ()

    def _factors(
        self, header: Header, before: dict[str, bytes | None]
    ) -> tuple[tuple[str, tuple[float, ...]], ...]:
        read = self.data
        if read is None:
            return ()

        def data(tensor: TensorInfo) -> bytes:
            content = before.get(tensor.name)
            # Of a remote file the record was not compared with the tensors.
            if content is None or len(content) != tensor.size:
                return read(tensor)
            return content

        factors = read_factors(header, data)
        for shard in self.later_shards:
            factors += read_factors(shard, partial(_data_of, shard))
        return factors


def extension_keys(header: Header) -> frozenset[str]:
    """Every key that an extension of the model may write."""
    name = header.string("general.architecture")
    return frozenset({TENSOR_COUNT_KEY, *(f"{name}.{key}" for key in rope_keys.EDITED)})


def _data_of(shard: Header, tensor: TensorInfo) -> bytes:
    """A tensor's data in another file of a split model."""
    assert shard.path is not None
    with shard.path.open("rb") as file:
        file.seek(shard.data_offset + tensor.offset)
        return file.read(tensor.size)


@dataclass(frozen=True, kw_only=True)
class OpenFile(OpenModel):
    """A model file of this machine, open under one descriptor.

    Attributes
    ----------
    path : Path
    files : FileSystem
        The operations to use.
    descriptor : int
    name : Path or str
        As the user named it, for commands in messages.
    exclusive : bool
        Whether nobody else can have the file open, as far as an edit has to know.
    in_use : bool
        Whether another program has it open, as far as an edit has to know.
    """

    path: Path
    files: FileSystem
    descriptor: int
    name: Path | str
    exclusive: bool
    in_use: bool

    def read(self, offset: int, size: int) -> bytes:
        """Bytes of the file as it is; fewer only at its end."""
        return self.files.read(self.descriptor, offset, size)

    @cached_property
    def original(self) -> Original:
        """It with its bytes and their hash: what an undo leads back to."""
        if self.restored is not None:
            return self.restored.original
        sha256 = hashlib.sha256(self.header_bytes).hexdigest()
        return Original(self.header, self.header_bytes, sha256)


@contextmanager
def open_model(
    model: Path | str | RemoteModel, *, files: FileSystem | None = None
) -> Iterator[OpenModel]:
    """Open a model for reading.

    Parameters
    ----------
    model : Path, str or RemoteModel
        A path, a name that `ggufext.locating.names` understands, or a remote header already read.
        A later part of a split model stands for the first.
    files : FileSystem, optional
        The operations to use; for tests.

    Raises
    ------
    HeaderError
        ``interrupted_edit`` and every fault of the header.
    LocationError
    """
    if isinstance(model, str) and is_remote(model):
        from ggufext.locating.remote import read_remote  # few models are

        model = read_remote(model)
    if not isinstance(model, (Path, str)):
        records = (partial(history.in_file, model.header),)
        restored, complaint, copied = _before(model.header, model.front, records, None)
        tensors = model.tensors
        yield OpenModel(
            path=model.name,
            header=model.header,
            header_bytes=model.front,
            restored=restored,
            complaint=complaint,
            copied=copied,
            data=None if tensors is None else lambda tensor: tensors[tensor.name],
        )
        return
    path = first_shard(local_path(model))
    with open_file(path, writing=False, files=files or FileSystem()) as opened:
        try:
            yield opened
        except PlanError as error:
            error.path = error.path or path  # what cannot be planned is of this model
            raise


@contextmanager
def open_file(
    path: Path,
    *,
    writing: bool,
    force: bool = False,
    name: Path | str | None = None,
    files: FileSystem,
) -> Iterator[OpenFile]:
    """Open a model file for an edit, or its first part; for writing, as its sole user.

    Parameters
    ----------
    writing : bool
        Lock the file and take a lease; nobody else may have it open.
    force : bool
        Go on although someone has the file open; `OpenFile.in_use` says so.
    name : Path or str, optional
        What the user called it, where that is not `path`: a symbolic link, ``ollama:NAME``.
    files : FileSystem

    Raises
    ------
    EditError
        ``in_use``, ``not_first_shard``, and the guards' refusals.
    HeaderError
        ``interrupted_edit`` and every fault of the header.
    """
    if writing:
        guards.check_writable(path)
    name = name or path
    with exclusively(files, path, writing=writing) as (descriptor, refusal):
        if refusal == errno.EAGAIN and not force:
            raise in_use(path, "--force, which puts a new file in the place of the open one")
        header, header_bytes = _read(files, descriptor, path, name)
        _check_first_shard(header, path)

        def read(offset: int, size: int) -> bytes:
            return files.read(descriptor, offset, size)

        records = (partial(history.in_file, header), partial(history.beside, files, path))
        restored, complaint, copied = _before(header, header_bytes, records, read)
        yield OpenFile(
            path=path,
            header=header,
            header_bytes=header_bytes,
            restored=restored,
            complaint=complaint,
            copied=copied,
            # Offsets count from the start of the data, which an edit moves as a whole.
            data=lambda tensor: read(header.data_offset + tensor.offset, tensor.size),
            files=files,
            descriptor=descriptor,
            name=name,
            exclusive=refusal == 0,
            in_use=refusal == errno.EAGAIN,
        )


def _read(files: FileSystem, descriptor: int, path: Path, name: Path | str) -> tuple[Header, bytes]:
    """The header and its bytes, unless an edit was cut off."""
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
            message=f"an edit of this file was interrupted; run `{command('recover', name)}` first",
        )
    content = files.read(descriptor, 0, header.data_offset)
    if len(content) != header.data_offset:
        raise HeaderError(
            code="truncated",
            path=path,
            message=f"the data would start at byte {header.data_offset:,}, and the file ends at "
            f"byte {len(content):,}: get it again",
        )
    # Values come from memory from here on: opening the file again would break the lease.
    return header.in_memory(content, descriptor), content


def _check_first_shard(header: Header, path: Path) -> None:
    """Refuse a later part of a split model whose name does not lead to the first."""
    number = header.value(NUMBER_KEY) if NUMBER_KEY in header.keys else 0
    if isinstance(number, int) and number > 0:
        raise EditError(
            code="not_first_shard",
            path=path,
            field=NUMBER_KEY,
            message=f"is part {number + 1} of a split model; its metadata lies in the first part, "
            "NAME-00001-of-0000N.gguf: name that file, and give this one its name back",
        )


def _before(
    header: Header,
    header_bytes: bytes,
    records: Iterable[Callable[[], History | None]],
    read: Callable[[int, int], bytes] | None,
) -> tuple[Restored | None, JournalError | None, Copied | None]:
    """What was before an extension of ours; parameters as of `find_restored`."""
    restored, complaint = find_restored(header, header_bytes, records, read)
    copied = None
    # Keys may have been set in a copy: then its own record is in what our record leads back to.
    before = header if restored is None else restored.original.header
    if restored is None or restored.record.method is None:
        with suppress(GgufextError):
            record = history.in_file(before)
            copied = copied_extension(header, header_bytes, record) if record else None
    return restored, complaint, copied


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


def facts_of(
    model: Path | str | RemoteModel,
    request: PlanRequest | None = None,
    *,
    files: FileSystem | None = None,
) -> ModelFacts:
    """Facts that a plan for a model starts from; see `OpenModel.original_facts`.

    Parameters
    ----------
    model, files
        As for `open_model`.
    request : PlanRequest, optional

    Raises
    ------
    HeaderError, PlanError, LocationError
    """
    with open_model(model, files=files) as opened:
        return opened.original_facts(request)
