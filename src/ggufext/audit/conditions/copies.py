"""Conditions with other factor tensors than the file run on a copy, which is gone after the run.

llama.cpp takes other metadata from outside, but no other tensors.
"""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from os import W_OK, access
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import TYPE_CHECKING

from ggufext.audit.conditions.conditions import OriginalCopy
from ggufext.editing.rewrite import rewrite, undo
from ggufext.errors import EngineError
from ggufext.header.header import read_header
from ggufext.header.shards import later_shards
from ggufext.opened.files import FileSystem
from ggufext.opened.strategies import Strategy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ggufext.audit.conditions.conditions import Condition


@dataclass(frozen=True, slots=True)
class CopyNeeded:
    """What a condition's copy costs.

    Attributes
    ----------
    condition : str
    folder : Path
        Where it goes: that of the file where it takes new files, else the system's.
    size, free : int
        Bytes of the copy and of free space there.
    """

    condition: str
    folder: Path
    size: int
    free: int


def refuse_copies(_: CopyNeeded) -> bool:
    """Allow no copy: what a run does that nobody watches."""
    return False


@contextmanager
def with_copies(
    path: Path,
    chosen: tuple[Condition, ...],
    allow: Callable[[CopyNeeded], bool],
    *,
    files: FileSystem | None = None,
) -> Iterator[tuple[Condition, ...]]:
    """Give every condition that needs one a copy, rewritten or undone, until the context is left.

    A copy that shares its blocks with the file costs nothing and is made without asking.

    Parameters
    ----------
    path : Path
        The model file; of a split model all parts are copied.
    allow : callable
        Asked before a copy that takes space.
    files : FileSystem, optional
        The operations to use; for tests.

    Raises
    ------
    EngineError
        ``copy_not_allowed``, ``no_space``.
    PlanError, EditError
        See `ggufext.editing.rewrite.rewrite` and `undo`.
    """
    if all(condition.copy is None for condition in chosen):
        yield chosen
        return
    files = files or FileSystem()
    path = path.absolute()
    beside = path.parent if access(path.parent, W_OK) else Path(gettempdir())
    with TemporaryDirectory(prefix=".ggufext-check-", dir=beside) as name:
        folder = Path(name)
        yield tuple(
            condition
            if condition.copy is None
            else replace(condition, path=_copy(path, condition, folder / f"{index}", allow, files))
            for index, condition in enumerate(chosen)
        )


def _copy(
    path: Path,
    condition: Condition,
    folder: Path,
    allow: Callable[[CopyNeeded], bool],
    files: FileSystem,
) -> Path:
    order = condition.copy
    assert order is not None
    folder.mkdir()
    # By the same name, so that llama.cpp finds the other parts of a split model.
    target = folder / path.name
    write: Callable[[], object]
    if isinstance(order, OriginalCopy):
        write = undoing = partial(undo, path, output=target, files=files)
        strategy = undoing(check=True).strategy
    else:
        write = rewriting = partial(rewrite, path, order.request, output=target, files=files)
        strategy = rewriting(dry_run=True).receipt.strategy
    if strategy is not Strategy.REFLINK:
        _refuse_or_ask(path, condition, folder, allow)
    write()
    return target


def _refuse_or_ask(
    path: Path, condition: Condition, folder: Path, allow: Callable[[CopyNeeded], bool]
) -> None:
    header = read_header(path)
    size = sum(part.file_size for part in (header, *later_shards(header)))
    free = shutil.disk_usage(folder).free
    needed = CopyNeeded(condition.name, folder.parent.parent, size, free)
    if size > free:
        raise EngineError(
            code="no_space",
            path=path,
            message=f"condition {condition.name!r} needs a copy of {size:,} bytes in "
            f"{needed.folder}, which has {free:,} free; make room, or put the file where there is "
            "some",
        )
    if not allow(needed):
        raise EngineError(
            code="copy_not_allowed",
            path=path,
            message=f"condition {condition.name!r} has other factor tensors than the file, which "
            f"llama.cpp takes from a file only: it needs a temporary copy of {size:,} bytes in "
            f"{needed.folder}, which has {free:,} free; --yes allows it",
        )
