"""What rewriting and setting share: which file is read, where the result goes, what was written."""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ggufext.editing.application import apply
from ggufext.editing.edit import build_edit
from ggufext.errors import EditError, command
from ggufext.header.shards import ShardName, first_shard, shard_name
from ggufext.locating.names import is_name, local_path
from ggufext.opened import guards
from ggufext.opened.journal import Direction
from ggufext.opened.model import open_file
from ggufext.opened.strategies import Strategy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ggufext.editing.changes import Changes
    from ggufext.editing.edit import ByteRange
    from ggufext.header.header import Header
    from ggufext.opened.files import FileSystem
    from ggufext.opened.model import OpenFile


@dataclass(frozen=True, slots=True)
class Receipt:
    """What an edit did, or would do.

    Attributes
    ----------
    strategy : Strategy or None
        How it was written; None where the file already held everything and nothing was written.
    output : Path
        The file that holds the result.
    bytes_written : int
        Bytes of the model file that were written; the journal not counted.
    ranges : tuple of ByteRange
        Which they are.
    seconds : float
        What it took, seconds.
    undo : str or None
        The command that takes it back, tried in memory; None where nothing can.
    in_use : bool
        Another program had the file open: it keeps the old content, and a new file has the name.
    """

    strategy: Strategy | None
    output: Path
    bytes_written: int
    ranges: tuple[ByteRange, ...]
    seconds: float
    undo: str | None
    in_use: bool = False


@contextmanager
def opened(
    path: Path | str,
    output: Path | None,
    *,
    follow: bool,
    force: bool,
    writing: bool,
    files: FileSystem,
) -> Iterator[OpenFile]:
    """The file that an edit reads, for writing its sole user; parameters as of `rewrite`.

    Parameters
    ----------
    output : Path or None
        Where the result goes; None edits in place.
    writing : bool
        Whether the file itself is written to.

    Raises
    ------
    HeaderError, EditError, LocationError
    """
    name = path if isinstance(path, str) and is_name(path) else Path(path)
    path = _source(local_path(path), output, follow=follow, force=force)
    with open_file(path, writing=writing, force=force, name=name, files=files) as model:
        yield model


def write(
    changes: Changes,
    *,
    output: Path | None,
    keep_history: bool,
    strategy: Strategy | None,
    force: bool,
    dry_run: bool,
    progress: Callable[[int, int], None],
    started: float,
) -> Receipt:
    """Put changes into a file, or say how that would go; parameters as of `rewrite`.

    Parameters
    ----------
    started : float
        When the work began, by `time.perf_counter`.

    Raises
    ------
    EditError, JournalError
        As `build_edit` and `apply`.
    """
    model = changes.model
    edit = build_edit(changes, output=output, keep_history=keep_history, wanted=strategy)
    copies = copies_of_parts(model, output, force=force) if output else {}
    if edit is not None and not dry_run:
        apply(
            model,
            edit,
            direction=Direction.EDIT,
            copies=copies,
            share=strategy is not Strategy.COPY,
            force=force,
            progress=progress,
        )
    return Receipt(
        strategy=edit.strategy if edit else None,
        output=output or model.path,
        bytes_written=sum(r.end - r.start for r in edit.ranges) if edit else 0,
        ranges=edit.ranges if edit else (),
        seconds=time.perf_counter() - started,
        undo=command("undo", output or model.name) if edit and keep_history else None,
        in_use=model.in_use and output is None,
    )


def copies_of_parts(model: OpenFile, output: Path, *, force: bool) -> dict[Path, Path]:
    """Where the other parts of a split model have to go, by where they are."""
    later = model.later_shards
    copies = {}
    for part, target in zip(later, _parts_beside(later, output), strict=True):
        if part.path is not None:
            _check_output(part.path, target, force=force)
            copies[part.path] = target
    return copies


def _source(path: Path, output: Path | None, *, follow: bool, force: bool) -> Path:
    """The file to read: the one that is edited in place, or any where the result goes elsewhere."""
    if output is None:
        return guards.resolve(path, follow=follow)
    path = first_shard(path)
    _check_output(path, output, force=force)
    return path


def _check_output(path: Path, output: Path, *, force: bool) -> None:
    guards.check_folder(output.parent, output)
    if output.exists() and path.exists() and output.samefile(path):
        raise EditError(
            code="output_exists",
            path=output,
            message="is the file to be read; leave --output out to edit it in place",
        )
    if os.path.lexists(output) and not force:
        raise EditError(
            code="output_exists",
            path=output,
            message="exists already; choose another name, or --force to replace it",
        )


def _parts_beside(later: tuple[Header, ...], output: Path) -> tuple[Path, ...]:
    """Where the other parts of a split model go when its first goes to a new file.

    Parameters
    ----------
    later : tuple of Header
        Of the other parts; none for a model in one file.
    output : Path

    Raises
    ------
    EditError
        ``output_name``: llama.cpp would not find the other parts by this name.
    """
    if not later:
        return ()
    count = len(later) + 1
    name = shard_name(output.name)
    if name is None or (name.number, name.total) != (1, count):
        wanted = ShardName(name.prefix if name else output.stem, 1, count)
        raise EditError(
            code="output_name",
            path=output,
            message=f"the model has {count} parts, and llama.cpp finds them by the name of the "
            f"first: expected --output {output.with_name(str(wanted))}",
        )
    return tuple(output.with_name(str(name.numbered(i))) for i in range(2, count + 1))
