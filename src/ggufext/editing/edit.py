"""From a plan to a patch and the strategy that puts it into this very file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ggufext.editing import history, strategies
from ggufext.editing import journal as journals
from ggufext.editing.application import apply_by_copy, apply_in_place
from ggufext.editing.changes import changes_for
from ggufext.editing.strategies import DEFAULT_BLOCK, Strategy
from ggufext.errors import EditError
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
    changes = changes_for(model, plan)
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
