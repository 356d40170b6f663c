"""Errors of ggufext: a code for programs, a sentence for people."""

from __future__ import annotations

import errno
import os
import shlex
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ggufext.system import system

#: Longest message printed, characters: two paths of the longest that Linux takes, and a sentence.
_LONGEST_MESSAGE = 2 * 4096 + 1024


class GgufextError(Exception):
    """Base of every error that ggufext raises on purpose.

    Parameters
    ----------
    code : str
        Stable name of the case, for programs (``"truncated"``, ``"in_use"`` …).
    message : str
        What was found, what was expected and what to do; no path, field or offset in it.
    path : Path or str, optional
        The file concerned, or the name of a remote one.
    field : str, optional
        The metadata key or tensor concerned.
    offset : int, optional
        Byte offset in the file.
    """

    def __init__(
        self,
        *,
        code: str,
        message: str,
        path: Path | str | None = None,
        field: str | None = None,
        offset: int | None = None,
    ) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message
        self.path = path
        self.field = field
        self.offset = offset

    def __reduce__(self) -> tuple[partial[GgufextError], tuple[()]]:
        # Errors of workers come back from other processes.
        return partial(type(self), **self.__dict__), ()

    def __str__(self) -> str:
        place = printable(self.field) if self.field else ""
        if self.offset is not None:
            place += f" at byte {self.offset:,}" if place else f"byte {self.offset:,}"
        parts = [printable(str(self.path), _LONGEST_MESSAGE) if self.path else "", place]
        parts.append(printable_message(self.message))
        return ": ".join(part for part in parts if part)


class LocationError(GgufextError):
    """A name leads to no model here, or to one that cannot be reached or must not be changed."""


class HeaderError(GgufextError):
    """The file is not a GGUF file that llama.cpp would read."""


class PlanError(GgufextError):
    """The request cannot be met for this model."""


class EditError(GgufextError):
    """The file must not, or could not, be changed."""


class JournalError(EditError):
    """A journal, history or undo record does not fit the file beside it."""


class NativeError(GgufextError):
    """The native module or a device it needs is missing."""


class EngineError(GgufextError):
    """A model could not be run."""


@dataclass(frozen=True, slots=True)
class ModelWarning:
    """Something to know before acting: a code for programs, a sentence for people.

    Attributes
    ----------
    code : str
        Stable name of the case, as docs/errors.md lists it.
    message : str
        What was found, and what to do.
    """

    code: str
    message: str


#: What the system's refusals mean for a file: a code for programs, and what to do.
_REFUSALS = {
    errno.ENOENT: ("unreadable", "check the name"),
    errno.ENOTDIR: ("unreadable", "check the name"),
    errno.EACCES: ("os_error", "check the permissions of the file and of its folders"),
    errno.EPERM: (
        "read_only",
        "`lsattr` shows whether the file or its folder is immutable (i) or append-only (a), and "
        "`chattr -i` or `chattr -a` as root ends that",
    ),
    errno.EROFS: (
        "read_only",
        "the file system is mounted read-only: write elsewhere, or mount it for writing",
    ),
    errno.ENOSPC: ("no_space", "the disk is full: make room, or write to another one"),
    errno.EDQUOT: ("no_space", "your quota is used up: make room, or write to another disk"),
    errno.EFBIG: (
        "no_space",
        "the file would be larger than the file system or `ulimit -f` allows: write elsewhere",
    ),
    errno.ELOOP: (
        "unreadable",
        "the symbolic link leads back to itself, or through too many others: name the file itself",
    ),
    errno.ENAMETOOLONG: ("os_error", "give the file or its folder a shorter name"),
    errno.EIO: ("os_error", "the disk or the network may be failing: see the system's log"),
}


def of_system(
    error: OSError, path: Path | str | None = None, *, kind: type[GgufextError] = GgufextError
) -> GgufextError:
    """What an error of the system means, in the words of this program.

    Parameters
    ----------
    error : OSError
    path : Path or str, optional
        The file concerned; that of the error without.
    kind : type
        Class of the result.
    """
    code, advice = _REFUSALS.get(error.errno or 0, ("os_error", ""))
    message = f"the system says: {error.strerror or error}" + (f"; {advice}" if advice else "")
    if path and error.filename and Path(error.filename).name != Path(path).name:
        message += f" (at {error.filename})"
    return kind(code=code, path=path or error.filename, message=message)


def command(verb: str, path: Path | str, *options: str) -> str:
    """A call of this program on a file, as a shell takes it.

    Parameters
    ----------
    verb : str
        The command; undo, recover and rewrite get ``--follow`` where `path` is a symbolic link.
    path : Path or str
        As the user named it.
    options : str
        What stands before the file.
    """
    if verb in {"rewrite", "undo", "recover"} and isinstance(path, Path) and path.is_symlink():
        options = (*options, "--follow")
    return shlex.join(["ggufext", verb, *options]) + " " + shell_word(path)


def shell_word(path: Path | str) -> str:
    """A path as one word of the shell, whatever its name is made of."""
    text = os.fspath(path)
    # A dash would begin an option, and ollama:NAME would be looked up.
    if isinstance(path, Path) and not path.is_absolute() and (text[:1] == "-" or ":" in text):
        text = f"./{text}"
    return system.quote(text)


def printable(text: str, limit: int = 400) -> str:
    """Text from a file or a path, safe to print: control characters escaped, long text shortened.

    Parameters
    ----------
    text : str
        Any text; model files may carry terminal escapes.
    limit : int
        Longest result in characters, > 1.
    """
    if len(text) > limit:
        text = text[: limit - 1] + "…"
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode("ascii")
        for c in text
    )


def printable_message(text: str) -> str:
    """A message of this program, safe to print and whole: what it quotes was shortened there."""
    return printable(text, _LONGEST_MESSAGE)


def shown(name: str) -> str:
    """A name without the password that an address may carry."""
    scheme, separator, rest = name.partition("://")
    host, slash, path = rest.partition("/")
    if "@" not in host or not separator or scheme.lower() == "hf":
        return name
    return f"{scheme}://…@{host.rpartition('@')[2]}{slash}{path}"
