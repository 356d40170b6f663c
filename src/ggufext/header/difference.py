"""What differs between two headers: keys with their values, tensors with their types and shapes."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ggufext.errors import printable
from ggufext.header.header import ValueType

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import TypeVar

    from ggufext.header.header import Header, KeyValue, Scalar, TensorInfo, Value

    T = TypeVar("T")

#: Characters of a string, and elements of an array, that are shown.
_SHOWN_CHARACTERS, _SHOWN_ELEMENTS = 60, 4

#: Characters that are shown before those that differ.
_CHARACTERS_BEFORE = 20


@dataclass(frozen=True, slots=True)
class ShownValue:
    """A value short enough to be shown.

    Attributes
    ----------
    type : str
        ``"UINT32"``, ``"ARRAY of STRING"`` …
    count : int
        How many elements an array has, 1 otherwise.
    text : str
        The value as JSON, printable; long strings and arrays shortened to where they differ.
    """

    type: str
    count: int
    text: str


@dataclass(frozen=True, slots=True)
class KeyDifference:
    """A key that is in one header only, or differs in type or value.

    Attributes
    ----------
    key : str
        Its name.
    before, after : ShownValue or None
        What each header says; None where it has no such key.
    first_difference : int or None
        For two arrays or two strings the first element or character that differs, counted from 0.
    """

    key: str
    before: ShownValue | None
    after: ShownValue | None
    first_difference: int | None = None


@dataclass(frozen=True, slots=True)
class TensorDifference:
    """A tensor that is in one header only, or differs in type or shape.

    Attributes
    ----------
    name : str
        Its name.
    before, after : TensorInfo or None
        What each header says; None where it has no such tensor.
    """

    name: str
    before: TensorInfo | None
    after: TensorInfo | None


@dataclass(frozen=True, slots=True)
class HeaderDifference:
    """Everything that differs; what only moved in the file does not count.

    Attributes
    ----------
    keys : tuple of KeyDifference
        Those that differ.
    tensors : tuple of TensorDifference
        Those that differ.
    same_keys, same_tensors : int
        How many are equal.
    """

    keys: tuple[KeyDifference, ...]
    tensors: tuple[TensorDifference, ...]
    same_keys: int
    same_tensors: int

    @property
    def is_empty(self) -> bool:
        """Whether the headers say the same."""
        return not self.keys and not self.tensors


def difference(before: Header, after: Header) -> HeaderDifference:
    """Compare two headers; the weights themselves are not read.

    Parameters
    ----------
    before, after : Header

    Raises
    ------
    HeaderError
        A large value has to be read from its file again and cannot be.
    """
    keys = [
        found
        for key in {**before.keys, **after.keys}
        if (found := key_difference(before, after, key)) is not None
    ]
    here = {tensor.name: tensor for tensor in before.tensors}
    there = {tensor.name: tensor for tensor in after.tensors}
    tensors = [
        TensorDifference(name, here.get(name), there.get(name))
        for name in {**here, **there}
        if not _both(here, there, name, lambda a, b: (a.type, a.shape) == (b.type, b.shape))
    ]
    return HeaderDifference(
        keys=tuple(keys),
        tensors=tuple(tensors),
        same_keys=len({**before.keys, **after.keys}) - len(keys),
        same_tensors=len({**here, **there}) - len(tensors),
    )


def _both(
    here: Mapping[str, T], there: Mapping[str, T], name: str, same: Callable[[T, T], bool]
) -> bool:
    return name in here and name in there and same(here[name], there[name])


def key_difference(before: Header, after: Header, key: str) -> KeyDifference | None:
    """What differs of one key; None where nothing does."""
    here, there = before.keys.get(key), after.keys.get(key)
    old = None if here is None else before.value(key)
    new = None if there is None else after.value(key)
    first: int | None = None
    if here is not None and there is not None:
        if _type(here) == _type(there) and _same(old, new):
            return None
        if isinstance(old, (tuple, str)) and isinstance(new, (tuple, str)):
            first = _first_difference(old, new)
    return KeyDifference(
        key,
        None if here is None or old is None else _shown(here, old, first or 0),
        None if there is None or new is None else _shown(there, new, first or 0),
        first,
    )


def _same(old: Value | None, new: Value | None) -> bool:
    if isinstance(old, tuple) and isinstance(new, tuple):
        # Comparing whole tuples is fast; only NaN, which equals nothing, needs the second look.
        return old == new or (len(old) == len(new) and all(map(_same_scalar, old, new)))
    return _same_scalar(old, new)


def _same_scalar(old: object, new: object) -> bool:
    if isinstance(old, float) and isinstance(new, float):
        return old == new or (math.isnan(old) and math.isnan(new))
    return old == new


def _first_difference(old: tuple[Scalar, ...] | str, new: tuple[Scalar, ...] | str) -> int:
    pairs = enumerate(zip(old, new, strict=False))
    return next(
        (number for number, (a, b) in pairs if not _same_scalar(a, b)), min(len(old), len(new))
    )


def _type(entry: KeyValue) -> str:
    if entry.element_type is None:
        return entry.type.name
    return f"{ValueType.ARRAY.name} of {entry.element_type.name}"


def _shown(entry: KeyValue, value: Value, first: int) -> ShownValue:
    """The value from its beginning, or from shortly before where it begins to differ."""
    if isinstance(value, str):
        text = _text(value, first)
    elif isinstance(value, tuple):
        start = first if first >= _SHOWN_ELEMENTS else 0
        shown = [_text(element) for element in value[start : start + _SHOWN_ELEMENTS]]
        before = ["…"] if start else []
        after = ["…"] if start + _SHOWN_ELEMENTS < len(value) else []
        text = f"[{', '.join([*before, *shown, *after])}]"
    else:
        text = _text(value)
    return ShownValue(_type(entry), entry.count, text)


def _text(value: Scalar, first: int = 0) -> str:
    if isinstance(value, str):
        start = first - _CHARACTERS_BEFORE if first >= _SHOWN_CHARACTERS else 0
        end = start + _SHOWN_CHARACTERS
        shortened = ("…" if start else "") + value[start:end] + ("…" if end < len(value) else "")
        return printable(json.dumps(shortened, ensure_ascii=False), limit=4 * _SHOWN_CHARACTERS)
    return f"{value:.9g}" if isinstance(value, float) else json.dumps(value)
