"""What a model may be called: a path, ``ollama:NAME``, an address, or ``hf://owner/repo/file``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeGuard

from ggufext.errors import LocationError, shown

if TYPE_CHECKING:
    from ggufext.locating.ollama import OllamaModel

#: What the name of one of Ollama's models begins with.
OLLAMA_PREFIX = "ollama:"

_REMOTE = ("http://", "https://", "hf://")


def is_remote(name: Path | str) -> TypeGuard[str]:
    """Whether a name is an address on another machine."""
    return isinstance(name, str) and name.lower().startswith(_REMOTE)


def is_name(text: str) -> bool:
    """Whether a text is no path but a name that has to be looked up."""
    return text.startswith(OLLAMA_PREFIX) or is_remote(text)


def local_path(name: Path | str) -> Path:
    """The file that a name means on this machine; a path is returned as it is.

    Parameters
    ----------
    name : Path or str
        A path, or ``ollama:NAME[:TAG]``; a file of such a name is ``./ollama:NAME``.

    Raises
    ------
    LocationError
        ``remote_model`` for an address; see `ggufext.locating.ollama.find`.
    """
    if is_remote(name):
        raise LocationError(
            code="remote_model",
            path=shown(name),
            message="lies on another machine: download it first; inspect, plan and diff read the "
            "header of a remote file",
        )
    model = ollama_model(name)
    return Path(name) if model is None else model.blob


def ollama_model(name: Path | str) -> OllamaModel | None:
    """The model of Ollama's that a name means; None for a path and for names of other kinds.

    Raises
    ------
    LocationError
        See `ggufext.locating.ollama.find`.
    """
    if isinstance(name, Path) or not name.startswith(OLLAMA_PREFIX):
        return None
    from ggufext.locating import ollama  # few names need it

    try:
        return ollama.find(name.removeprefix(OLLAMA_PREFIX))
    except LocationError as error:
        error.path = error.path or name
        raise
