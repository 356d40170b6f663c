"""From a plan to a patch and the strategy that puts it into this very file."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from ggufext.editing import history, strategies
from ggufext.editing import journal as journals
from ggufext.editing.application import apply_by_copy, apply_in_place
from ggufext.editing.patch import (
    HISTORY_KEY,
    encode_entry,
    front_patch,
    value_patch,
    whole_patch,
)
from ggufext.editing.strategies import DEFAULT_BLOCK, Strategy
from ggufext.editing.tensors import TensorChange, tensor_change
from ggufext.errors import EditError
from ggufext.header.factors import encode_factors
from ggufext.header.reading import parse_header

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ggufext.editing.files import FileSystem
    from ggufext.editing.history import History
    from ggufext.editing.journal import Direction
    from ggufext.editing.opening import OpenModel
    from ggufext.editing.patch import Patch
    from ggufext.planning.plan import Plan


#: Key of a split model's parts: tensors in all parts together.
_SPLIT_COUNT = "split.tensors.count"


@dataclass(frozen=True, slots=True)
class ByteRange:
    """Bytes of the resulting file that an edit writes, [start, end)."""

    start: int
    end: int
    what: str


@dataclass(frozen=True, slots=True)
class Edit:
    """A patch, checked in memory, and how it gets into the file.

    Attributes
    ----------
    patch : Patch
    strategy : Strategy
    output : Path
        Where the result goes: the model itself, or a new file.
    block : int
        Bytes in whose multiples the file system can shift this file.
    expected_header : bytes
        The header as it must read afterwards.
    record_beside : History or None
        Undo record for which the file has no room.
    """

    patch: Patch
    strategy: Strategy
    output: Path
    block: int
    expected_header: bytes
    record_beside: History | None = None

    @property
    def ranges(self) -> tuple[ByteRange, ...]:
        """The bytes that are written."""
        patch = self.patch
        if self.strategy is Strategy.COPY:
            return (ByteRange(0, patch.size_after, "the whole file, as a new one"),)
        front = ByteRange(0, len(patch.new_front), "front of the header")
        moved = (
            ByteRange(
                s.offset + patch.growth,
                s.offset + patch.growth + len(s.new),
                "values in their place",
            )
            for s in patch.spans
        )
        start, size = patch.tail_start + patch.growth, len(patch.new_tail)
        tail = (ByteRange(start, start + size, "tensors at the end"),) if size else ()
        return (front, *moved, *tail)


def build_edit(
    files: FileSystem,
    model: OpenModel,
    plan: Plan,
    *,
    output: Path | None,
    keep_history: bool,
    wanted: Strategy | None,
) -> Edit | None:
    """The edit that makes a model hold a plan; None where it already does.

    Parameters
    ----------
    output : Path or None
        A new file to write; None edits in place.
    keep_history : bool
        Keep what an exact undo needs.
    wanted : Strategy or None
        Use this one or refuse.

    Raises
    ------
    EditError
        ``strategy_unusable``, ``lease_unavailable``.
    """
    changes = _changes(model, plan)
    if output is None and changes.are_in_the_file:
        return None
    record = changes.record(plan) if keep_history else None
    if output is not None:
        if wanted not in {None, Strategy.COPY}:
            raise _unusable(wanted, model.path, "a new file is written by copy")
        patch = changes.compact() if record is None else changes.growing(record, DEFAULT_BLOCK)
        return _checked(model, patch, Strategy.COPY, output=output, block=DEFAULT_BLOCK)

    patch, block = changes.growing(record, DEFAULT_BLOCK), None
    if patch.growth:
        block = strategies.insert_block(files, model.path.parent)
        patch = changes.growing(record, block or DEFAULT_BLOCK)
    in_values = changes.in_values()
    possible: dict[Strategy, tuple[Patch, History | None]] = {Strategy.COPY: (patch, None)}
    if in_values is not None:
        possible[Strategy.OVERWRITE] = (in_values, record)
    if not patch.growth:
        possible[Strategy.OVERWRITE] = (patch, None)
    elif block and patch.tells_its_state and not files.holes(model.descriptor):
        possible[Strategy.INSERT] = (patch, None)
    if not patch.growth:
        automatic = Strategy.OVERWRITE
    else:
        automatic = next(s for s in (Strategy.INSERT, *Strategy) if s in possible)
    if not model.exclusive:
        # Nobody can tell here whether the file is in use: only a copy is safe.
        automatic = Strategy.COPY
        if wanted in {Strategy.INSERT, Strategy.OVERWRITE}:
            raise _not_exclusive(model.path)
    chosen = wanted or automatic
    if chosen not in possible:
        raise _unusable(chosen, model.path, _why_not(files, model, chosen, block))
    chosen_patch, beside = possible[chosen]
    return _checked(
        model,
        chosen_patch,
        chosen,
        output=model.path,
        block=block or DEFAULT_BLOCK,
        record_beside=beside,
    )


def build_undo(files: FileSystem, model: OpenModel, record: History) -> Edit:
    """The edit that gives a model its original bytes back; raises as `history.undo_patch`."""
    patch = history.undo_patch(model.header, model.header_bytes, record, model.read)
    block = strategies.insert_block(files, model.path.parent) if patch.growth else None
    if not model.exclusive:
        chosen = Strategy.COPY
    elif not patch.growth:
        chosen = Strategy.OVERWRITE
    elif (
        block
        and patch.growth % block == 0
        and patch.tells_its_state
        and not files.holes(model.descriptor)
    ):
        chosen = Strategy.INSERT
    else:
        chosen = Strategy.COPY
    return _checked(model, patch, chosen, output=model.path, block=block or DEFAULT_BLOCK)


def apply(
    files: FileSystem,
    model: OpenModel,
    edit: Edit,
    *,
    direction: Direction,
    progress: Callable[[int, int], None],
) -> None:
    """Put an edit into the file, and its undo record in its place.

    Parameters
    ----------
    progress : callable
        Called during a copy with bytes done and bytes in all.
    """
    beside = history.sidecar(edit.output)
    if edit.record_beside is not None:
        journals.write_beside(files, beside, edit.record_beside.encode().encode("utf-8"))
    if edit.strategy is Strategy.COPY:
        apply_by_copy(
            files,
            model.descriptor,
            model.path,
            edit.output,
            edit.patch,
            expected_header=edit.expected_header,
            progress=progress,
        )
    else:
        apply_in_place(
            files,
            model.descriptor,
            model.path,
            edit.patch,
            direction=direction,
            block=edit.block,
            expected_header=edit.expected_header,
        )
    if edit.record_beside is None and beside.exists():
        # The record lies in the file now, or the file is the original again.
        files.remove(beside)


class _Changes:
    """Entries to replace, remove and add, and tensors, so that a file holds a plan."""

    def __init__(
        self,
        model: OpenModel,
        replaced: dict[str, bytes | None],
        added: tuple[bytes, ...],
        tensors: TensorChange,
        touched: tuple[str, ...],
    ) -> None:
        self.model = model
        self.replaced = replaced
        self.added = added
        self.tensors = tensors
        self.touched = touched

    @property
    def are_in_the_file(self) -> bool:
        """Whether the file already holds everything."""
        keys, content = self.model.header.keys, self.model.header_bytes
        return (
            not self.added
            and self.tensors.is_empty
            and all(
                entry == content[keys[key].start : keys[key].end]
                for key, entry in self.replaced.items()
            )
        )

    def record(self, plan: Plan) -> History:
        """The undo record, always back to the original file."""
        model = self.model
        return history.of_new_edit(
            model.header,
            model.header_bytes,
            earlier=model.history,
            touched=self.touched,
            method=plan.method.value,
            target_length=plan.target_length,
            time=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            infos=self.tensors.infos,
            tensors=self.tensors.originals,
        )

    def growing(self, record: History | None, block: int) -> Patch:
        """Patch with a filler and, where kept, the undo record; grows in blocks if it must."""
        replaced, added = dict(self.replaced), self.added
        has_record = HISTORY_KEY in self.model.header.keys
        if has_record:
            replaced[HISTORY_KEY] = record.entry() if record else None
        elif record:
            added = (*added, record.entry())
        step = max(block, self.model.header.alignment)
        header, content = self.model.header, self.model.header_bytes
        if self.tensors.infos_change:
            patch = whole_patch(
                header,
                content,
                replaced=replaced,
                added=added,
                infos=self.tensors.infos,
                step=step,
            )
        else:
            patch = front_patch(header, content, replaced=replaced, added=added, step=step)
        return self.tensors.with_data(patch)

    def compact(self) -> Patch:
        """Patch that leaves no trace of this program in the file."""
        replaced = dict(self.replaced)
        if HISTORY_KEY in self.model.header.keys:
            replaced[HISTORY_KEY] = None
        patch = whole_patch(
            self.model.header,
            self.model.header_bytes,
            replaced=replaced,
            added=self.added,
            infos=self.tensors.infos,
            step=None,
        )
        return self.tensors.with_data(patch)

    def in_values(self) -> Patch | None:
        """Patch that changes values where they stand, where that is enough."""
        same = {key: entry for key, entry in self.replaced.items() if entry is not None}
        if self.added or len(same) < len(self.replaced) or self.tensors.infos_change:
            return None
        patch = value_patch(self.model.header, self.model.header_bytes, same)
        return None if patch is None else self.tensors.with_data(patch)


def _changes(model: OpenModel, plan: Plan) -> _Changes:
    """What turns the file as it is into the original with this plan."""
    tensors = _tensors(model, plan)
    planned = {e.key: encode_entry(e.key, e.type, e.after) for e in plan.edits}
    planned |= _counted(model, tensors)
    # Keys of an earlier edit that this plan does not touch go back to the original.
    earlier = dict(model.history.original) if model.history else {}
    replaced: dict[str, bytes | None] = {}
    added: list[bytes] = []
    for key, entry in {**earlier, **planned}.items():
        if key in model.header.keys:
            replaced[key] = entry
        elif entry is not None:
            added.append(entry)
    return _Changes(model, replaced, tuple(added), tensors, tuple(planned))


def _tensors(model: OpenModel, plan: Plan) -> TensorChange:
    original = model.original
    return tensor_change(
        model.header,
        model.header_bytes,
        model.read,
        wanted={edit.name: encode_factors(edit.after) for edit in plan.tensor_edits},
        originals=model.history.tensors if model.history else (),
        original_size=original.file_size - original.data_offset,
    )


def _counted(model: OpenModel, tensors: TensorChange) -> dict[str, bytes]:
    """The number of tensors that a split model declares in its first part."""
    entry = model.original.keys.get(_SPLIT_COUNT)
    more = tensors.infos.count - model.original.tensor_count
    if entry is None or not more:
        return {}
    total = model.original.value(_SPLIT_COUNT)
    assert isinstance(total, int)
    return {_SPLIT_COUNT: encode_entry(_SPLIT_COUNT, entry.type, total + more)}


def _checked(
    model: OpenModel,
    patch: Patch,
    strategy: Strategy,
    *,
    output: Path,
    block: int,
    record_beside: History | None = None,
) -> Edit:
    """The edit, after its header was built in memory and read: before anything is touched."""
    expected = patch.applied(model.header_bytes)
    parse_header(expected, file_size=patch.size_after)
    return Edit(patch, strategy, output, block, expected, record_beside)


def _why_not(files: FileSystem, model: OpenModel, strategy: Strategy, block: int | None) -> str:
    if strategy is Strategy.OVERWRITE:
        return "there is no room for new keys in the header"
    if block is None:
        return "the file system of this folder cannot insert ranges (ext4 and xfs can)"
    if files.holes(model.descriptor):
        return "the file has holes, so an interrupted insert could not be recovered"
    return "there is room in the header: nothing has to move"


def _unusable(strategy: Strategy | None, path: Path, why: str) -> EditError:
    name = strategy.value if strategy else "this strategy"
    return EditError(
        code="strategy_unusable",
        path=path,
        message=f"{name} is not possible here: {why}; leave --strategy out to have one chosen",
    )


def _not_exclusive(path: Path) -> EditError:
    return EditError(
        code="lease_unavailable",
        path=path,
        message="this file system, or the file's owner, does not let ggufext see whether another "
        "program has it open; use --strategy copy, or --force",
    )
