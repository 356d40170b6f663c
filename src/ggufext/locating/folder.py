"""The model files of a folder and of the folders in it; a split set counts once."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ggufext.errors import LocationError
from ggufext.header.shards import shard_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """One model and its files.

    Attributes
    ----------
    name : str
        As its place calls it.
    paths : tuple of Path
        The file, or the parts of a split set that are here, in order.
    parts : int
        Parts that the set should have, 1 for a single file.
    """

    name: str
    paths: tuple[Path, ...]
    parts: int = 1

    @property
    def has_first(self) -> bool:
        """Whether the file that holds the metadata is here."""
        name = shard_name(self.paths[0].name)
        return name is None or name.number == 1


def models_in(folder: Path) -> tuple[ModelFiles, ...]:
    """Every model under a folder, sorted by name.

    Links to folders are followed once; a file that several names lead to is one model.

    Raises
    ------
    LocationError
        ``folder_unreadable`` for the folder itself; unreadable folders in it are left out.
    """
    try:
        os.scandir(folder).close()
    except OSError as error:
        raise LocationError(
            code="folder_unreadable", path=folder, message=error.strerror or str(error)
        ) from error
    return grouped((str(path.relative_to(folder)), path) for path in _files(folder))


def grouped(named: Iterable[tuple[str, Path]]) -> tuple[ModelFiles, ...]:
    """Files as models: parts of a split set together, the same file under two names once."""
    models: dict[tuple[Path, int], list[tuple[str, Path]]] = {}
    seen: set[tuple[int, int]] = set()
    for name, path in sorted(named):
        try:
            status = path.stat()
        except OSError:
            identity = None  # a broken link: worth a row that says so
        else:
            identity = (status.st_dev, status.st_ino)
        if identity in seen:
            continue
        if identity is not None:
            seen.add(identity)
        shard = shard_name(path.name)
        whole = path if shard is None else path.with_name(shard.prefix)
        parts = 1 if shard is None else shard.total
        models.setdefault((whole, parts), []).append((name, path))
    return tuple(
        ModelFiles(files[0][0], tuple(path for _, path in files), parts)
        for (_, parts), files in models.items()
    )


def _files(folder: Path) -> Iterator[Path]:
    entered: set[tuple[int, int]] = set()
    for place, folders, files in os.walk(folder, followlinks=True):
        status = os.stat(place)  # noqa: PTH116 - thousands of folders
        if (status.st_dev, status.st_ino) in entered:
            folders.clear()
            continue
        entered.add((status.st_dev, status.st_ino))
        for name in files:
            if name.lower().endswith(".gguf"):
                yield Path(place, name)
