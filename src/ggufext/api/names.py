"""Names that people use for models: paths, Ollama's names, addresses."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ggufext.arguments import public
from ggufext.header import shards
from ggufext.locating import names
from ggufext.locating.names import is_remote

if TYPE_CHECKING:
    from collections.abc import Callable

    from ggufext.locating.remote import RemoteModel

__all__ = ["find_model", "first_shard", "is_name", "local_path"]

first_shard = public(shards.first_shard)
is_name = public(names.is_name)
local_path = public(names.local_path)


@public
def find_model(
    model: Path | str, *, progress: Callable[[int], None] = lambda _read: None
) -> Path | RemoteModel:
    """The file that a name means, or the header of one on another machine.

    Parameters
    ----------
    model : Path or str
        A path, ``ollama:NAME[:TAG]``, ``http://``, ``https://`` or ``hf://owner/repo/file.gguf``.
    progress : callable
        Called with the bytes read so far from another machine.

    Raises
    ------
    LocationError, HeaderError
    """
    if isinstance(model, Path) or not is_remote(model):
        return names.local_path(model)
    from ggufext.locating.remote import read_remote  # few names need it

    return read_remote(model, progress=progress)
