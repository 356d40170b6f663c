"""From changes to a patch and the strategy that puts it into this very file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ggufext.errors import EditError, JournalError
from ggufext.header.header import parse_header
from ggufext.opened import history, restoration, strategies
from ggufext.opened.patch import HISTORY_KEY
from ggufext.opened.strategies import DEFAULT_BLOCK, Blocks, Strategy

if TYPE_CHECKING:
    from pathlib import Path

    from ggufext.editing.changes import Changes
    from ggufext.header.header import Header
    from ggufext.opened.history import History
    from ggufext.opened.model import OpenFile
    from ggufext.opened.patch import Patch


@dataclass(frozen=True, slots=True)
class ByteRange:
    """Bytes of the resulting file that an edit writes, [start, end).

    Attributes
    ----------
    start, end : int
        Bytes from the start of the file.
    what : str
        What they hold.
    """

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
        Bytes in whose multiples the file system moves or shares data.
    expected_header : bytes
        The header as it must read afterwards.
    record_beside : str or None
        Undo record for which the file has no room.
    """

    patch: Patch
    strategy: Strategy
    output: Path
    block: int
    expected_header: bytes
    record_beside: str | None = None

    @property
    def ranges(self) -> tuple[ByteRange, ...]:
        """The bytes that are written."""
        patch = self.patch
        if self.strategy is Strategy.COPY:
            return (ByteRange(0, patch.size_after, "the whole file, as a new one"),)
        if self.strategy is Strategy.REFLINK:
            own = patch.shared_from(self.block) + patch.growth
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
    changes: Changes,
    *,
    output: Path | None,
    keep_history: bool,
    wanted: Strategy | None,
) -> Edit | None:
    """The edit that makes a model hold changes; None where it already does.

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
        ``strategy_unusable``, ``lease_unavailable``, ``in_use``.
    JournalError
        ``history_mismatch``: an undo would not lead back.
    """
    model = changes.model
    if output is None and changes.are_in_the_file:
        return None
    record = changes.record() if keep_history else None
    if output is not None:
        blocks = strategies.sharing(model.files, model.descriptor, output.parent)
        patch = changes.compact() if record is None else changes.growing(record, blocks.block)
        expected = patch.applied(model.header_bytes)
        edit = _new_file(model, patch, expected, output, blocks, wanted)
        return _checked(model, edit, record)
    patch, blocks = changes.growing(record, DEFAULT_BLOCK), Blocks()
    if patch.growth or wanted is Strategy.REFLINK or not model.exclusive:
        blocks = strategies.blocks_for(model.files, model.descriptor, model.path.parent)
        patch = changes.growing(record, blocks.block)
    possible = _possible(model, patch, blocks)
    # Where the data cannot move, the record lies beside the file.
    in_place = changes.without_record() if patch.growth else patch
    if in_place is not None:
        possible.add(Strategy.OVERWRITE)
    if not model.exclusive and wanted in {Strategy.INSERT, Strategy.OVERWRITE}:
        raise _not_exclusive(model)
    chosen = wanted or _best(model, patch, possible)
    if chosen not in possible:
        raise _unusable(chosen, model.path, _why_not(model, chosen, blocks))
    beside = None
    if chosen is Strategy.OVERWRITE and in_place is not None and patch.growth:
        patch, beside = in_place, record.encode() if record else None
    expected = patch.applied(model.header_bytes)
    edit = _in_place(model, patch, expected, chosen, blocks, beside)
    return _checked(model, edit, record)


def build_undo(model: OpenFile, *, output: Path | None) -> Edit:
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
    patch = model.restored.patch if model.restored else None
    if patch is None:
        raise model.complaint or EditError(
            code="nothing_to_undo",
            path=model.path,
            message="carries no undo record: it was not edited by ggufext, or with --no-history",
        )
    # The record's own check was that the patch leads to these bytes.
    expected = model.original.header_bytes
    if output is not None:
        blocks = strategies.sharing(model.files, model.descriptor, output.parent)
        return _new_file(model, patch, expected, output, blocks, None)
    blocks = Blocks()
    if patch.growth or not model.exclusive:
        blocks = strategies.blocks_for(model.files, model.descriptor, model.path.parent)
    chosen = _best(model, patch, _possible(model, patch, blocks))
    return _in_place(model, patch, expected, chosen, blocks)


def _possible(model: OpenFile, patch: Patch, blocks: Blocks) -> set[Strategy]:
    """The strategies that put a patch into the file, whether it is in use or not."""
    possible = {Strategy.COPY}
    if not patch.growth:
        possible.add(Strategy.OVERWRITE)
    elif (
        blocks.insert
        and patch.growth % blocks.insert == 0
        and patch.tells_its_state
        and not model.files.holes(model.descriptor)
    ):
        possible.add(Strategy.INSERT)
    if blocks.shares(patch.growth):
        possible.add(Strategy.REFLINK)
    return possible


def _best(model: OpenFile, patch: Patch, possible: set[Strategy]) -> Strategy:
    """The safest of the quick strategies.

    A reflink comes before an insert, which a power failure can leave half-done. Where nobody can
    tell whether the file is in use, only a new file in its place is safe.
    """
    order: tuple[Strategy, ...]
    if not model.exclusive:
        order = (Strategy.REFLINK, Strategy.COPY)
    elif patch.growth:
        order = (Strategy.REFLINK, Strategy.INSERT, Strategy.OVERWRITE, Strategy.COPY)
    else:
        order = (Strategy.OVERWRITE,)
    return next(strategy for strategy in order if strategy in possible)


def _in_place(
    model: OpenFile,
    patch: Patch,
    expected: bytes,
    strategy: Strategy,
    blocks: Blocks,
    beside: str | None = None,
) -> Edit:
    block = {Strategy.INSERT: blocks.insert, Strategy.REFLINK: blocks.share}.get(strategy)
    return Edit(patch, strategy, model.path, block or DEFAULT_BLOCK, expected, beside)


def _new_file(
    model: OpenFile,
    patch: Patch,
    expected: bytes,
    output: Path,
    blocks: Blocks,
    wanted: Strategy | None,
) -> Edit:
    """The edit that writes a patched model into a file of its own.

    `blocks` is what `ggufext.opened.strategies.sharing` found in its folder.
    """
    shares = blocks.shares(patch.growth)
    chosen = wanted or (Strategy.REFLINK if shares else Strategy.COPY)
    if chosen in {Strategy.INSERT, Strategy.OVERWRITE}:
        raise _unusable(chosen, model.path, "a new file is written by reflink or copy")
    if chosen is Strategy.REFLINK and not shares:
        raise _unusable(chosen, model.path, _why_not_shared(blocks))
    return Edit(patch, chosen, output, blocks.share or DEFAULT_BLOCK, expected)


def _checked(model: OpenFile, edit: Edit, record: History | None) -> Edit:
    """The edit, after its header and its undo were read in memory: before anything is touched."""
    patch = edit.patch
    header = parse_header(edit.expected_header, file_size=patch.size_after, path=model.path)
    if record is not None:
        _check_undo(model, edit, header)
    return edit


def _check_undo(model: OpenFile, edit: Edit, header: Header) -> None:
    """Refuse an edit whose record, as it will be in the file or beside it, does not lead back."""
    original, text = model.original, edit.record_beside or str(header.value(HISTORY_KEY))
    try:
        restored = restoration.restore(
            header,
            edit.expected_header,
            history.decode(text, model.path),
            edit.patch.reader(model.read),
            known=original,
        )
        exact = restored.original.header_bytes == original.header_bytes
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


def _why_not_shared(blocks: Blocks) -> str:
    if blocks.share is not None:
        return "a header without history has no filler, so the data does not move by whole blocks"
    if blocks.clone:
        return "the file system of this folder shares whole files only, and the header grows"
    return "the file system of this folder cannot share blocks between files (xfs, btrfs can)"


def _why_not(model: OpenFile, strategy: Strategy, blocks: Blocks) -> str:
    if strategy is Strategy.OVERWRITE:
        return "there is no room for new keys in the header"
    if strategy is Strategy.REFLINK:
        return _why_not_shared(blocks)
    if blocks.insert is None:
        return "the file system of this folder cannot insert ranges (ext4 and xfs can)"
    if model.files.holes(model.descriptor):
        return "the file has holes, so an interrupted insert could not be recovered"
    return "there is room in the header: nothing has to move"


def _unusable(strategy: Strategy, path: Path, why: str) -> EditError:
    return EditError(
        code="strategy_unusable",
        path=path,
        message=f"{strategy.value} is not possible here: {why}; leave --strategy out to have one "
        "chosen",
    )


def _not_exclusive(model: OpenFile) -> EditError:
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
