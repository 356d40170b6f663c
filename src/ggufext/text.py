"""What is written one way everywhere: results as JSON, and shares, sizes and times for people."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from enum import Enum, IntEnum
from pathlib import PurePath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def percent(share: float) -> str:
    """0.95 as ``95 %``; a value that is not whole is never shown as 0 or 100."""
    if 0 < share < 0.005:
        return "<1 %"
    if 0.995 <= share < 1:
        return ">99 %"
    return f"{100 * share:.0f} %"


def counted(number: int, noun: str) -> str:
    """``1 text``, ``1,024 texts``: of nouns that take an s."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def binary_size(size: int) -> str:
    """Bytes with a binary unit: ``4.00 GiB``."""
    value = float(size)
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if value < 1024 or unit == "GiB":
            break
        value /= 1024
    return f"{size:,} bytes" if unit == "bytes" else f"{value:,.2f} {unit}"


_MULTIPLES = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}


def size_of(text: str, units: str) -> int:
    """32,768 of ``32768``, ``32k`` and ``32K``.

    Parameters
    ----------
    text : str
    units : str
        Binary multiples that may stand behind the number, of ``"kmgt"``.

    Raises
    ------
    ValueError
        It is no whole number above 0.
    """
    match = re.fullmatch(rf"(\d{{1,15}})([{units}]?)", text, re.IGNORECASE)
    if match is None or int(match[1]) == 0:
        expected = f"a whole number above 0, with {', '.join(units)} or nothing"
        raise ValueError(f"{text!r} is not a size: {expected}")
    return int(match[1]) * _MULTIPLES[match[2].lower()]


def duration(seconds: float) -> str:
    """80 as ``80 s``, 4,000 as ``67 min``, 90,000 as ``25 h``."""
    if seconds < 120:
        return f"{max(round(seconds), 1)} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 72 * 3600 else f"{seconds / 86400:.0f} days"


#: Characters that may have to be escaped: nearly all text is none of them.
_NOT_PRINTABLE = re.compile(r"[^\x20-\x7e]")


#: Metadata of a dataclass's field whose own fields stand in its place in JSON.
MERGED = {"json": "merged"}


def jsonable(value: object) -> object:
    """A value in the types of JSON.

    Dataclasses become objects by field name, where `MERGED` fields are left out for those they
    hold; enums their values, those of whole numbers their names; paths and keys text. Numbers
    that are not finite, for which JSON has no form, become ``"NaN"``, ``"Infinity"`` and
    ``"-Infinity"``, as in the JSON mapping of Protocol Buffers.
    """
    if isinstance(value, Enum):
        return value.name if isinstance(value, IntEnum) else value.value
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return json.dumps(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = _fields(value)
    if isinstance(value, dict):
        return {str(jsonable(key)): jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [jsonable(item) for item in value]
    return value


def _fields(value: DataclassInstance) -> dict[str, object]:
    found: dict[str, object] = {}
    for field in dataclasses.fields(value):
        held = getattr(value, field.name)
        found |= _fields(held) if field.metadata == MERGED else {field.name: held}
    return found


def json_text(value: object, *, indent: int | None = 2) -> str:
    """One JSON document; only what a terminal can show stays unescaped.

    So is a file name that is not UTF-8: Python's ``json.loads`` gives back the path, and the text
    can be encoded.

    Parameters
    ----------
    value : object
        As `jsonable` takes it.
    indent : int or None
        Blanks a level; None: all on one line.

    Raises
    ------
    TypeError
        The value holds something that is no data.
    """
    text = json.dumps(jsonable(value), indent=indent, ensure_ascii=False, allow_nan=False)
    return text if text.isprintable() else _NOT_PRINTABLE.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    character = found[0]
    # Lines of the document itself end here; those inside strings are escaped already.
    if character.isprintable() or character == "\n":
        return character
    return json.dumps(character)[1:-1]
