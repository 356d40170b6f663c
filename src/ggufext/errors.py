"""Errors of ggufext: a code for programs, a sentence for people."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


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
        parts = [printable(str(self.path)) if self.path else "", place, printable(self.message)]
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
    """Something to know before acting: a code for programs, a sentence for people."""

    code: str
    message: str


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
