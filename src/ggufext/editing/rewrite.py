"""Rewriting a model file for a longer context, taking that back, and recovering."""

from __future__ import annotations

import errno
import os
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ggufext.editing import recovery
from ggufext.editing.application import apply, remove_abandoned_copies
from ggufext.editing.changes import changes_of_plan, changes_without_extension
from ggufext.editing.edit import build_undo
from ggufext.editing.recovery import State
from ggufext.editing.writing import Receipt, copies_of_parts, opened, write
from ggufext.errors import JournalError, ModelWarning, PlanError, command
from ggufext.header.architectures import Support
from ggufext.header.header import MAGIC, read_header
from ggufext.locating.names import local_path
from ggufext.opened import guards, history
from ggufext.opened import journal as journals
from ggufext.opened.files import FileSystem, draft_of
from ggufext.opened.journal import Direction
from ggufext.opened.model import exclusively, in_use
from ggufext.opened.patch import OWN_KEYS
from ggufext.opened.strategies import Strategy
from ggufext.planning.edits import acting_edits
from ggufext.planning.gamma import Verdict
from ggufext.planning.plan import plan

if TYPE_CHECKING:
    from collections.abc import Callable

    from ggufext.opened.journal import Journal
    from ggufext.opened.model import OpenFile
    from ggufext.planning.request import PlanRequest
    from ggufext.planning.result import Plan


_NEEDLESS_COPY = ModelWarning(
    "needless_copy",
    "the header cannot grow in place here, so the whole file is copied; --strategy overwrite would "
    "write the values that act and copy nothing: the file would not tell what it was, and its undo "
    "record would lie beside it",
)


@dataclass(frozen=True, slots=True)
class Rewritten:
    """A plan and what became of it."""

    plan: Plan
    receipt: Receipt


@dataclass(frozen=True, slots=True)
class Undone:
    """How an undo or a recovery ended.

    Attributes
    ----------
    path : Path
        The file that is the original now.
    state : State
    size : int
        Of the file now, bytes; where nothing was done yet, of the original.
    strategy : Strategy or None
        How it was written; None where nothing was written, or would be.
    in_use : bool
        Another program had the file open: it keeps the edited one.
    """

    path: Path
    state: State
    size: int
    strategy: Strategy | None
    in_use: bool = False


def rewrite(
    path: Path | str,
    request: PlanRequest,
    *,
    output: Path | str | None = None,
    keep_history: bool = True,
    strategy: Strategy | None = None,
    follow: bool = False,
    dry_run: bool = False,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
    files: FileSystem | None = None,
) -> Rewritten:
    """Extend the context of one GGUF file, in place unless `output` names a new one.

    A file that was extended before is planned again from its original facts.

    Parameters
    ----------
    path : Path or str
        The file, or ``ollama:NAME`` with an `output`.
    request : PlanRequest
    output : Path or str, optional
        Write a new file and leave `path` alone; the other parts of a split model go beside it.
    keep_history : bool
        Keep what an exact undo needs; without it the file keeps no record of earlier edits either.
    strategy : Strategy, optional
        Use this one or refuse. Where the header has no room, an overwrite leaves out keys that
        would only tell what the file was.
    follow : bool
        Edit the target of a symbolic link.
    dry_run : bool
        Write nothing; the receipt tells what would be written.
    progress : callable
        Called during a copy with bytes done and bytes in all.
    files : FileSystem, optional
        The operations to use; for tests.

    Raises
    ------
    HeaderError, PlanError, EditError
        Nothing was changed, or the message says how to recover.
    """
    started, force = time.perf_counter(), request.force
    target = None if output is None else Path(output)
    _refuse_config(local_path(path), request.target_length)
    with opened(
        path,
        target,
        follow=follow,
        force=force,
        writing=target is None,
        files=files or FileSystem(),
    ) as model:
        facts = model.original_facts(request)
        made = plan(facts, request)
        overwriting = made
        if not model.header.keys.keys() & set(OWN_KEYS):
            # There is no room but that of the values.
            overwriting = replace(made, edits=acting_edits(facts, made.edits))
        if strategy is Strategy.OVERWRITE:
            made = overwriting
        _check_plan(made, model, facts.support, force=force)
        receipt = write(
            changes_of_plan(model, made, model.evidence(request)),
            output=target,
            keep_history=keep_history,
            strategy=strategy,
            force=force,
            dry_run=dry_run,
            progress=progress,
            started=started,
        )
        if (
            receipt.strategy is Strategy.COPY
            and strategy is None
            and target is None
            and not model.in_use
            and changes_of_plan(model, overwriting, None).without_record() is not None
        ):
            made = replace(made, warnings=(*made.warnings, _NEEDLESS_COPY))
    return Rewritten(plan=made, receipt=receipt)


def unextend(
    path: Path | str,
    output: Path | str,
    *,
    dry_run: bool = False,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
    files: FileSystem | None = None,
) -> Receipt:
    """Write a new file without the extension of this one, and with the keys that were set.

    Parameters
    ----------
    path, output, dry_run, progress, files
        See `rewrite`.

    Raises
    ------
    HeaderError, EditError
        The refusals of `rewrite`.
    """
    started, target = time.perf_counter(), Path(output)
    with opened(
        path, target, follow=False, force=False, writing=False, files=files or FileSystem()
    ) as model:
        return write(
            changes_without_extension(model),
            output=target,
            # With room for a record a header has whole blocks, and the data can be shared.
            keep_history=True,
            strategy=None,
            force=False,
            dry_run=dry_run,
            progress=progress,
            started=started,
        )


def undo(
    path: Path | str,
    *,
    output: Path | str | None = None,
    follow: bool = False,
    check: bool = False,
    force: bool = False,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
    files: FileSystem | None = None,
) -> Undone:
    """Give a rewritten file its exact original bytes back, in place unless `output` is given.

    Parameters
    ----------
    output : Path or str, optional
        Write the original to a new file and leave `path` alone; the other parts of a split model go
        beside it.
    check : bool
        Build and check the original header in memory, and write nothing.
    force : bool
        Replace a file that is in use by a new one, and an existing output.
    path, follow, progress, files
        See `rewrite`.

    Raises
    ------
    EditError
        ``nothing_to_undo`` for a file without a record, and the refusals of `rewrite`.
    JournalError
        ``history_mismatch``: the record belongs to another state of the file.
    """
    target = None if output is None else Path(output)
    with opened(
        path,
        target,
        follow=follow,
        force=force,
        writing=target is None and not check,
        files=files or FileSystem(),
    ) as model:
        edit = build_undo(model, output=target)
        copies = copies_of_parts(model, target, force=force) if target else {}
        if not check:
            apply(
                model,
                edit,
                direction=Direction.UNDO,
                copies=copies,
                share=True,
                force=force,
                progress=progress,
            )
    state = State.POSSIBLE if check else State.RESTORED
    return Undone(
        path=edit.output,
        state=state,
        size=edit.patch.size_after,
        strategy=edit.strategy,
        in_use=model.in_use,
    )


def recover(
    path: Path | str,
    *,
    follow: bool = False,
    force: bool = False,
    files: FileSystem | None = None,
) -> Undone:
    """Bring a file whose edit was interrupted to its old or its new state, in place.

    Parameters
    ----------
    force : bool
        Accept that another program has the file open, as long as no loader would take it: one
        that begins with its magic may be loaded there, and is refused.
    path, follow, files
        See `rewrite`.

    Raises
    ------
    EditError
        ``in_use``.
    JournalError
        ``damaged_journal``, ``foreign_owner``, ``unclear_state``; nothing was
        changed.
    """
    files = files or FileSystem()
    path = guards.resolve(local_path(path), follow=follow)
    remove_abandoned_copies(files, path)
    small = (journals.path_for(path), history.sidecar(path))
    drafts = [draft_of(target) for target in small]
    state, strategy = State.UNTOUCHED, None
    if any(os.path.lexists(each) for each in (small[0], *drafts)):
        with exclusively(files, path, writing=True) as (descriptor, refusal):
            # Only under the lock is nobody writing them.
            for draft in drafts:
                files.discard(draft)
            journal = journals.read(files, path)
            if journal is not None:
                _check_belongs(files, descriptor, path, journal)
                _check_unused(files, descriptor, path, refusal, force=force)
                state = recovery.recover_open_file(files, descriptor, path, journal)
                strategy = Strategy.INSERT if journal.patch.growth else Strategy.OVERWRITE
    return Undone(path=path, state=state, size=read_header(path).file_size, strategy=strategy)


def _check_unused(
    files: FileSystem, descriptor: int, path: Path, refusal: int, *, force: bool
) -> None:
    if refusal != errno.EAGAIN:
        return
    if files.read(descriptor, 0, len(MAGIC)) == MAGIC:
        raise in_use(path, "go on with it: the model is complete, only a journal is left")
    if not force:
        raise in_use(path, "--force: no program can load it as it is")


def _check_belongs(files: FileSystem, descriptor: int, path: Path, journal: Journal) -> None:
    if not journals.belongs(files, descriptor, journal):
        raise JournalError(
            code="damaged_journal",
            path=journals.path_for(path),
            message="belongs to another file than the one beside it; nothing was changed; if the "
            "model loads, the journal may be removed",
        )


def _check_plan(made: Plan, model: OpenFile, support: Support, *, force: bool) -> None:
    if made.verdict is Verdict.NO_EXTENSION_NEEDED and not made.edits:
        instead = "if the model was trained on less, say so with --train-length"
        if model.history is not None and model.history.target_length is not None:
            instead = (
                f"the file was extended to {model.history.target_length:,} tokens, and "
                f"`{command('undo', model.name)}` gives the original back"
            )
        raise PlanError(
            code="target_not_longer",
            path=model.path,
            message=f"target of {made.target_length:,} tokens is not above the training length of "
            f"{made.train_length.value:,} ({made.train_length.source}), nor above context_length: "
            f"nothing to write; {instead}",
        )
    if support is not Support.VERIFIED and not force:
        wish = ("--target", str(made.target_length), "--method", made.method.value)
        planning = command("plan", model.name, *wish)
        raise PlanError(
            code="unverified_architecture",
            path=model.path,
            field="general.architecture",
            message=f"is {made.architecture}; what llama.cpp does with its RoPE keys was not "
            f"verified by experiment; `{planning}` shows what would be written, --force writes it",
        )


def _refuse_config(path: Path, target_length: int) -> None:
    if path.suffix == ".gguf" and path.is_file():
        return
    from ggufext.header.hf_config import config_file

    config = config_file(path)
    if config is not None and config.exists():
        raise PlanError(
            code="config_not_rewritten",
            path=path,
            message="is a Hugging Face configuration, which rewrite does not edit; "
            f"`{command('plan', path, '--target', str(target_length), '--emit', 'hf')}` prints the "
            "entries to put into it",
        )
