"""Where a file must not be changed in place: each refusal names its reason and the way out."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from ggufext.errors import EditError, shell_word
from ggufext.header.shards import first_shard
from ggufext.system import system

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
        ``symlink``, ``shared_file``, ``ollama_blob``.
    HeaderError
        A later part of a split model cannot be read.
    """
    path = first_shard(path)
    target = Path(os.path.realpath(path))
    for place in (path.absolute(), target):
        _refuse_managed(place, path)
    if path.is_symlink():
        path.stat()  # a link that leads to itself, or nowhere, is the system's to name
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
            code="shared_file",
            path=path,
            message="lies in the Hugging Face cache, where every revision shares it under the "
            f"hash of its content; {_NEW_FILE}",
        )


def check_writable(path: Path) -> None:
    """Refuse files and folders in which an edit could not be done and journaled.

    Raises
    ------
    EditError
        ``shared_file``, ``read_only``.
    """
    status = path.stat()
    # Folders have several links too; what is no file is named when it is opened.
    if stat.S_ISREG(status.st_mode) and status.st_nlink > 1:
        raise EditError(
            code="shared_file",
            path=path,
            message=f"has {status.st_nlink} hard links, and all of them would change; {_NEW_FILE}",
        )
    obstacle = _obstacle(path)
    if obstacle is None and (
        not status.st_mode & (stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH)
        or not os.access(path, os.W_OK)
    ):
        remedy = system.make_writable.format(path=shell_word(path))
        obstacle = f"is not writable for you; `{remedy}` makes it so"
    if obstacle is not None:
        raise EditError(code="read_only", path=path, message=f"{obstacle}, or {_NEW_FILE}")
    check_folder(path.parent, path)


def _obstacle(path: Path) -> str | None:
    """What keeps everybody, root too, from changing a file or the files of a folder."""
    if found := system.why_unchangeable(path):
        what, remedy = found
        return f"{what}; {remedy.format(path=shell_word(path))}"
    return None


def check_folder(folder: Path, path: Path) -> None:
    """Refuse a folder that takes no new files.

    Raises
    ------
    EditError
        ``read_only``.
    """
    obstacle = _obstacle(folder) if folder.is_dir() else "does not exist; make it first"
    if obstacle is None and not os.access(folder, os.W_OK | os.X_OK):
        obstacle = "takes no new files from you"
    if obstacle is not None:
        raise EditError(
            code="read_only",
            path=path,
            message=f"folder {folder} {obstacle}; the journal or the copy goes there; {_NEW_FILE} "
            "in another folder",
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
    import shutil  # it loads every archive format

    free = shutil.disk_usage(folder).free
    if free < needed:
        raise EditError(
            code="no_space",
            path=path,
            message=f"needs {needed:,} bytes in {folder}, which has {free:,} free; make room, or "
            "write to another disk with --output",
        )
