"""Where a file must not be changed in place: each refusal names its reason and the way out."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

from ggufext.errors import EditError, shell_word
from ggufext.header.shards import first_shard

_NEW_FILE = "write a new file with --output"

#: FS_IOC_GETFLAGS, FS_IMMUTABLE_FL and FS_APPEND_FL of Linux (linux/fs.h).
_GET_FLAGS = 0x80086601
_IMMUTABLE, _APPEND_ONLY = 0x10, 0x20


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
        obstacle = f"is not writable for you; `chmod u+w {shell_word(path)}` makes it so"
    if obstacle is not None:
        raise EditError(code="read_only", path=path, message=f"{obstacle}, or {_NEW_FILE}")
    check_folder(path.parent, path)


def _obstacle(path: Path) -> str | None:
    """What keeps everybody, root too, from changing a file or the files of a folder."""
    if os.statvfs(path).f_flag & os.ST_RDONLY:
        return "lies on a file system that is mounted read-only; mount it for writing"
    attributes = _attributes(path)
    for flag, option, name in ((_IMMUTABLE, "i", "immutable"), (_APPEND_ONLY, "a", "append-only")):
        if attributes & flag:
            return f"is {name}; `chattr -{option} {shell_word(path)}` as root ends that"
    return None


def _attributes(path: Path) -> int:
    """Attributes as chattr(1) sets them; 0 where the file system or the system has none."""
    if not sys.platform.startswith("linux"):
        return 0
    import fcntl

    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return 0
    try:
        flags = fcntl.ioctl(descriptor, _GET_FLAGS, bytes(8))
    except OSError:
        return 0
    finally:
        os.close(descriptor)
    return int.from_bytes(flags[:4], sys.byteorder)


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
