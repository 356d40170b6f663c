"""Editing a split model: only its first part changes, the others go with it to a new place."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from ggufext.editing import strategies
from ggufext.editing.application import apply_by_copy
from ggufext.editing.patch import FIXED_SIZE, Patch
from ggufext.errors import EditError
from ggufext.header.shards import ShardName, shard_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from ggufext.editing.files import FileSystem
    from ggufext.header.header import Header


def beside_output(later: tuple[Header, ...], output: Path) -> tuple[Path, ...]:
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


@contextmanager
def parts_copied(
    files: FileSystem,
    copies: Mapping[Path, Path],
    output: Path,
    *,
    share: bool,
    replace: bool,
    progress: Callable[[int, int], None],
) -> Iterator[None]:
    """Copy the other parts of a split model as they are; nothing new stays when the rest fails.

    Parameters
    ----------
    copies : mapping of Path to Path
        Where each goes, by where it is; none for a model in one file.
    output : Path
        Where the first part will go.
    share : bool
        Share blocks with the source where that is possible.
    replace : bool
        Replace files that have the names of the copies.
    progress : callable
        Called during each copy with bytes done and bytes in all.

    Raises
    ------
    EditError
        As `ggufext.editing.application.apply_by_copy`.
    """
    made: list[Path] = []
    try:
        for source, target in copies.items():
            made += () if replace and target.exists() else (target,)
            _copy(files, source, target, share=share, replace=replace, progress=progress)
        if copies:
            made += () if replace and output.exists() else (output,)
        yield
    except (OSError, EditError, KeyboardInterrupt) as error:
        if isinstance(error, EditError) and error.code == "output_exists":
            made = made[:-1]  # the last one is somebody else's
        for target in made:
            files.discard(target)
        raise


def _copy(
    files: FileSystem,
    path: Path,
    target: Path,
    *,
    share: bool,
    replace: bool,
    progress: Callable[[int, int], None],
) -> None:
    source = files.open_for_reading(path)
    try:
        front = files.read(source, 0, FIXED_SIZE)
        apply_by_copy(
            files,
            source,
            path,
            target,
            Patch(size=files.size(source), old_front=front, new_front=front),
            expected_header=front,
            share=strategies.share_block(files, source, target.parent) if share else None,
            replace=replace,
            progress=progress,
        )
    finally:
        files.close(source)
