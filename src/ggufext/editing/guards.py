"""Where a file must not be changed in place: each refusal names its reason and the way out."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from ggufext.errors import EditError
from ggufext.header.shards import NUMBER_KEY, first_shard

if TYPE_CHECKING:
    from pathlib import Path

    from ggufext.header.header import Header

_NEW_FILE = "write a new file with --output"


def resolve(path: Path, *, follow: bool) -> Path:
    """The file that an edit of `path` would change: of a split model its first part.

    Parameters
    ----------
    follow : bool
        Edit the target of a symbolic link.

    Raises
    ------
    EditError
        ``symlink``, ``huggingface_cache``, ``ollama_blob``.
    HeaderError
        A later part of a split model cannot be read.
    """
    path = first_shard(path)
    target = path.resolve()
    for place in (path.absolute(), target):
        _refuse_managed(place, path)
    if path.is_symlink():
        if not follow:
            raise EditError(
                code="symlink",
                path=path,
                message=f"is a symbolic link to {target}; --follow edits that file, or {_NEW_FILE}",
            )
        return target
    return path


def _refuse_managed(place: Path, path: Path) -> None:
    parts = place.parts
    if "blobs" in parts and place.name.startswith("sha256-"):
        raise EditError(
            code="ollama_blob",
            path=path,
            message="is a blob of Ollama, named by the hash of its content; "
            f"{_NEW_FILE} and make a model from it (Modelfile: FROM ./new.gguf)",
        )
    in_cache = any(part.startswith(("models--", "datasets--")) for part in parts)
    if in_cache and ("snapshots" in parts or "blobs" in parts):
        raise EditError(
            code="huggingface_cache",
            path=path,
            message="lies in the Hugging Face cache, where every revision shares it under the "
            f"hash of its content; {_NEW_FILE}",
        )


def check_writable(path: Path) -> None:
    """Refuse files and folders in which an edit could not be done and journaled.

    Raises
    ------
    EditError
        ``hard_links``, ``read_only``, ``folder_not_writable``.
    """
    status = path.stat()
    # Folders have several links too; what is no file is named when it is opened.
    if stat.S_ISREG(status.st_mode) and status.st_nlink > 1:
        raise EditError(
            code="hard_links",
            path=path,
            message=f"has {status.st_nlink} hard links, and all of them would change; {_NEW_FILE}",
        )
    if not status.st_mode & (stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH) or not os.access(
        path, os.W_OK
    ):
        raise EditError(
            code="read_only",
            path=path,
            message=f"is not writable for you; make it writable (chmod u+w), or {_NEW_FILE}",
        )
    check_folder(path.parent, path)


def check_folder(folder: Path, path: Path) -> None:
    """Refuse a folder that takes no new files.

    Raises
    ------
    EditError
        ``folder_not_writable``.
    """
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise EditError(
            code="folder_not_writable",
            path=path,
            message=f"folder {folder} takes no new files from you; the journal or the copy goes "
            f"there; {_NEW_FILE} in another folder",
        )


def check_space(folder: Path, needed: int, path: Path) -> None:
    """Refuse what the disk has no room for.

    Parameters
    ----------
    needed : int
        Bytes.

    Raises
    ------
    EditError
        ``no_space``.
    """
    if not hasattr(os, "statvfs"):
        return
    status = os.statvfs(folder)
    free = status.f_bavail * status.f_frsize
    if free < needed:
        raise EditError(
            code="no_space",
            path=path,
            message=f"needs {needed:,} bytes in {folder}, which has {free:,} free; make room, or "
            "write to another disk with --output",
        )


def check_first_shard(header: Header, path: Path) -> None:
    """Refuse a later part of a split model whose name does not lead to the first.

    Raises
    ------
    EditError
        ``not_first_shard``.
    """
    if NUMBER_KEY not in header.keys:
        return
    number = header.value(NUMBER_KEY)
    if isinstance(number, int) and number > 0:
        raise EditError(
            code="not_first_shard",
            path=path,
            field=NUMBER_KEY,
            message=f"is part {number + 1} of a split model; its metadata lies in the first part, "
            "NAME-00001-of-0000N.gguf: name that file, and give this one its name back",
        )
