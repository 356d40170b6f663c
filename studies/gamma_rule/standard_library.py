"""Python's standard library as a text to train on, and modules held out of it.

A top-level module or package is in one part as a whole, by the hash of its name: so no part
depends on another, on the order of files or on what else is installed.
"""

from __future__ import annotations

import hashlib
import sysconfig
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

#: Tests, tables and copies of other texts: not what a reader calls source.
_LEFT_OUT = {"encodings", "ensurepip", "idlelib", "lib2to3", "pydoc_data", "site-packages"}
_LEFT_OUT |= {"test", "tests", "turtledemo", "_pyio.py"}


#: Characters that make 4,096 tokens of the language model's vocabulary, with some to spare.
SHORTEST_TEXT = 14_000


class Part(Enum):
    """What a module is used for."""

    TRAINING = "training"
    TUNING = "tuning"
    """Held out; what is chosen by looking is chosen on it."""
    TEST = "test"
    """Held out; only what is reported is measured on it."""


#: Upper ends of the parts' shares of [0, 1).
_SHARES = ((Part.TEST, 0.12), (Part.TUNING, 0.20), (Part.TRAINING, 1.0))


@dataclass(frozen=True, slots=True)
class Source:
    """One file.

    Attributes
    ----------
    name : str
        Path inside the library, with ``/``.
    text : str
    """

    name: str
    text: str

    @property
    def module(self) -> str:
        """Its top-level module or package."""
        return self.name.split("/")[0].removesuffix(".py")

    @property
    def part(self) -> Part:
        """Where its top-level module or package belongs."""
        return part_of(self.module)


def part_of(module: str) -> Part:
    """Part of a top-level module: a property of its name alone."""
    share = int(hashlib.sha256(module.encode()).hexdigest()[:8], 16) / 2**32
    return next(part for part, end in _SHARES if share < end)


def sources(folder: Path | None = None) -> list[Source]:
    """Files of the standard library, by name.

    Parameters
    ----------
    folder : Path, optional
        Of the library; this Python's when absent.
    """
    root = folder or Path(sysconfig.get_paths()["stdlib"])
    found = []
    for path in root.rglob("*.py"):
        name = path.relative_to(root)
        if not any(part in _LEFT_OUT or part.startswith("config-") for part in name.parts):
            found.append(Source(name.as_posix(), path.read_text(encoding="utf-8")))
    return sorted(found, key=lambda source: source.name)


def held_out_texts(library: Iterable[Source], part: Part) -> list[Source]:
    """Texts that a model of the training part is measured on, by name.

    One file a top-level module, its longest, of at least SHORTEST_TEXT characters: files of one
    module have names and habits in common.
    """
    longest: dict[str, Source] = {}
    for source in library:
        best = longest.get(source.module)
        if source.part is part and (best is None or len(source.text) > len(best.text)):
            longest[source.module] = source
    return [source for source in longest.values() if len(source.text) >= SHORTEST_TEXT]


def digest(texts: Iterable[Source]) -> str:
    """SHA-256 of names and texts, in hexadecimal: what a model was trained on."""
    total = hashlib.sha256()
    for source in texts:
        total.update(f"{source.name}\0{source.text}\0".encode())
    return total.hexdigest()
