"""From a plan to a patch and the strategy that puts it into this very file."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ggufext.editing.application import apply_by_copy, apply_in_place, shared_from
from ggufext.editing.changes import changes_for
from ggufext.errors import EditError, JournalError, command, of_system
from ggufext.header.header import parse_header
from ggufext.opened import beside, history, strategies
from ggufext.opened import journal as journals
from ggufext.opened.files import SyncError
from ggufext.opened.patch import HISTORY_KEY
from ggufext.opened.restoration import restore
from ggufext.opened.strategies import DEFAULT_BLOCK, Strategy

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ggufext.editing.changes import Changes
    from ggufext.header.header import Header
    from ggufext.opened.files import FileSystem
    from ggufext.opened.history import History
    from ggufext.opened.journal import Direction
    from ggufext.opened.model import OpenModel
    from ggufext.opened.patch import Patch
    from ggufext.opened.strategies import Place
    from ggufext.planning.result import Plan


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
        if self.strategy is Strategy.REFLINK:
            own = shared_from(patch, self.block) + patch.growth
            return (ByteRange(0, own, "start of a new file that shares the rest with the old"),)
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
        return _new_file(files, model, changes, record, output, wanted)

    patch, place = changes.growing(record, DEFAULT_BLOCK), strategies.Place()
    if patch.growth or wanted is Strategy.REFLINK or not model.exclusive:
        place = strategies.place_of(files, model.descriptor, model.path.parent)
        patch = changes.growing(record, place.block)
    # With each, whether the record goes beside the file.
    possible = {Strategy.COPY: (patch, False)}
    without_record = changes.without_record()
    if without_record is not None:
        possible[Strategy.OVERWRITE] = (without_record, True)
    if not patch.growth:
        possible[Strategy.OVERWRITE] = (patch, False)
    elif place.insert and patch.tells_its_state and not files.holes(model.descriptor):
        possible[Strategy.INSERT] = (patch, False)
    if place.share:
        possible[Strategy.REFLINK] = (patch, False)
    if not model.exclusive and wanted in {Strategy.INSERT, Strategy.OVERWRITE}:
        raise _not_exclusive(model)
    chosen = wanted or _best(set(possible), grows=bool(patch.growth), exclusive=model.exclusive)
    if chosen not in possible:
        raise _unusable(chosen, model.path, _why_not(files, model, chosen, place))
    chosen_patch, is_beside = possible[chosen]
    return _checked(
        model,
        chosen_patch,
        chosen,
        output=model.path,
        block=place.block,
        record=record,
        is_beside=is_beside,
    )


def _new_file(
    files: FileSystem,
    model: OpenModel,
    changes: Changes,
    record: History | None,
    output: Path,
    wanted: Strategy | None,
) -> Edit:
    """The edit that writes a model into a file of its own."""
    share = strategies.share_block(files, model.descriptor, output.parent)
    block = max(share or 0, DEFAULT_BLOCK)
    patch = changes.compact() if record is None else changes.growing(record, block)
    shares = share is not None and patch.growth % share == 0
    chosen = wanted or (Strategy.REFLINK if shares else Strategy.COPY)
    if chosen in {Strategy.INSERT, Strategy.OVERWRITE}:
        raise _unusable(chosen, model.path, "a new file is written by reflink or copy")
    if chosen is Strategy.REFLINK and not shares:
        raise _unusable(chosen, model.path, _CANNOT_SHARE if share is None else _NO_FILLER)
    return _checked(model, patch, chosen, output=output, block=block, record=record)


def _best(possible: set[Strategy], *, grows: bool, exclusive: bool) -> Strategy:
    """The safest of the quick strategies.

    A reflink comes before an insert, which a power failure can leave half-done. Where nobody can
    tell whether the file is in use, only a new file in its place is safe.
    """
    order: tuple[Strategy, ...]
    if not exclusive:
        order = (Strategy.REFLINK, Strategy.COPY)
    elif grows:
        order = (Strategy.REFLINK, Strategy.INSERT, Strategy.OVERWRITE, Strategy.COPY)
    else:
        order = (Strategy.OVERWRITE,)
    return next(strategy for strategy in order if strategy in possible)


def build_undo(files: FileSystem, model: OpenModel, *, output: Path | None) -> Edit:
    """The edit that gives a model its original bytes back.

    Parameters
    ----------
    output : Path or None
        A new file to write; None edits in place.

    Raises
    ------
    EditError
        ``nothing_to_undo`` without a record.
    JournalError
        What is wrong with a record that does not fit.
    """
    patch = model.undo_patch
    if patch is None:
        raise model.complaint or EditError(
            code="nothing_to_undo",
            path=model.path,
            message="carries no undo record: it was not rewritten by ggufext, or with --no-history",
        )
    if output is not None:
        block = strategies.share_block(files, model.descriptor, output.parent)
        shares = block is not None and patch.growth % block == 0
        chosen = Strategy.REFLINK if shares else Strategy.COPY
        return _checked(model, patch, chosen, output=output, block=block or DEFAULT_BLOCK)
    place = strategies.Place()
    if patch.growth or not model.exclusive:
        place = strategies.place_of(files, model.descriptor, model.path.parent)
    possible = {Strategy.COPY}
    if not patch.growth:
        possible.add(Strategy.OVERWRITE)
    elif (
        place.insert
        and patch.growth % place.insert == 0
        and patch.tells_its_state
        and not files.holes(model.descriptor)
    ):
        possible.add(Strategy.INSERT)
    if place.share and patch.growth % place.share == 0:
        possible.add(Strategy.REFLINK)
    chosen = _best(possible, grows=bool(patch.growth), exclusive=model.exclusive)
    block = place.insert if chosen is Strategy.INSERT else place.share
    return _checked(model, patch, chosen, output=model.path, block=block or DEFAULT_BLOCK)


def apply(
    files: FileSystem,
    model: OpenModel,
    edit: Edit,
    *,
    direction: Direction,
    force: bool,
    progress: Callable[[int, int], None],
) -> None:
    """Put an edit into the file, and its undo record in its place.

    Parameters
    ----------
    force : bool
        Replace what has the name of the output.
    progress : callable
        Called during a copy with bytes done and bytes in all.

    Raises
    ------
    EditError
        ``no_space``, ``read_only`` or ``os_error``: nothing was changed; and those of
        `apply_in_place` and `apply_by_copy`.
    """
    try:
        _apply(files, model, edit, direction, force=force, progress=progress)
    except SyncError as error:
        kept = "the model was not changed, or completely: check the disk, then run"
        if journals.path_for(model.path).exists():
            kept = "the journal is kept: check the disk, then run"
        raise EditError(
            code="sync_failed",
            path=model.path,
            message=f"the disk did not confirm a write ({error.strerror}); {kept} "
            f"`{command('recover', model.name)}`",
        ) from error
    except OSError as error:
        refusal = of_system(error, edit.output, kind=EditError)
        refusal.message += "; nothing was changed"
        raise refusal from error


def _apply(
    files: FileSystem,
    model: OpenModel,
    edit: Edit,
    direction: Direction,
    *,
    force: bool,
    progress: Callable[[int, int], None],
) -> None:
    record = None if edit.record_beside is None else edit.record_beside.encode()
    if edit.strategy in {Strategy.REFLINK, Strategy.COPY}:
        apply_by_copy(
            files,
            model.descriptor,
            model.path,
            edit.output,
            edit.patch,
            expected_header=edit.expected_header,
            share=edit.block if edit.strategy is Strategy.REFLINK else None,
            replace=force,
            progress=progress,
        )
        # They belonged to the file that was there before; the new one holds its record.
        for left in (history.sidecar(edit.output), journals.path_for(edit.output)):
            with suppress(PermissionError):  # somebody else's, which is not trusted
                beside.remove(files, left)
    else:
        apply_in_place(
            files,
            model.descriptor,
            model.path,
            edit.patch,
            name=model.name,
            direction=direction,
            block=edit.block,
            expected_header=edit.expected_header,
            record_beside=record,
        )


def _checked(
    model: OpenModel,
    patch: Patch,
    strategy: Strategy,
    *,
    output: Path,
    block: int,
    record: History | None = None,
    is_beside: bool = False,
) -> Edit:
    """The edit, after its header and its undo were built in memory: before anything is touched."""
    expected = patch.applied(model.header_bytes)
    header = parse_header(expected, file_size=patch.size_after, path=model.path)
    if record is not None:
        _check_undo(model, patch, header, expected, record if is_beside else None)
    return Edit(patch, strategy, output, block, expected, record if is_beside else None)


def _check_undo(
    model: OpenModel, patch: Patch, header: Header, header_bytes: bytes, record: History | None
) -> None:
    """Refuse an edit whose record, as it will be in the file or beside it, does not lead back."""
    text = record.encode() if record else str(header.value(HISTORY_KEY))
    try:
        found = history.decode(text, model.path)
        restored = restore(header, header_bytes, found, patch.reader(model.read))
        exact = restored.header_bytes == model.original_bytes
    except JournalError:
        exact = False
    if not exact:
        raise JournalError(
            code="history_mismatch",
            path=model.path,
            field=HISTORY_KEY,
            message="the undo record of this edit would not lead back to the original (it may be "
            "too long, where the file carries a long one already); nothing was changed; "
            "--no-history writes without a record",
        )


_NO_FILLER = "a header without history has no filler, so the data does not move by whole blocks"
_CANNOT_SHARE = "the file system of this folder cannot share blocks between files (xfs, btrfs can)"


def _why_not(files: FileSystem, model: OpenModel, strategy: Strategy, place: Place) -> str:
    if strategy is Strategy.OVERWRITE:
        return "there is no room for new keys in the header"
    if strategy is Strategy.REFLINK:
        return _CANNOT_SHARE
    if place.insert is None:
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


def _not_exclusive(model: OpenModel) -> EditError:
    replace = "leave --strategy out to have the file replaced by a new one"
    if model.in_use:
        return EditError(
            code="in_use",
            path=model.path,
            message="is open in another program, whose bytes must not move, with --force neither; "
            f"{replace}",
        )
    return EditError(
        code="lease_unavailable",
        path=model.path,
        message="this file system, or the file's owner, does not let ggufext see whether another "
        f"program has it open; {replace}",
    )
