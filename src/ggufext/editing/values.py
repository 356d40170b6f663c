"""Values that people give for keys: of which type, and whether that type holds them."""

from __future__ import annotations

import json
import math
import re
import struct
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from ggufext.errors import EditError, printable
from ggufext.header.header import ValueType
from ggufext.opened.patch import FORMATS

if TYPE_CHECKING:
    from ggufext.header.header import KeyValue, Scalar, Value

#: Types by the names under which they are said.
_TYPES = {
    "u8": ValueType.UINT8,
    "i8": ValueType.INT8,
    "u16": ValueType.UINT16,
    "i16": ValueType.INT16,
    "u32": ValueType.UINT32,
    "i32": ValueType.INT32,
    "u64": ValueType.UINT64,
    "i64": ValueType.INT64,
    "f32": ValueType.FLOAT32,
    "f64": ValueType.FLOAT64,
    "bool": ValueType.BOOL,
    "str": ValueType.STRING,
}

#: Marks an array of a type.
_ARRAY = "[]"

_TRUTHS = {"true": True, "false": False}


class KeyType(NamedTuple):
    """Type of a key, of an array with that of its elements."""

    type: ValueType
    element_type: ValueType | None = None

    def __str__(self) -> str:
        names = {value: name for name, value in _TYPES.items()}
        if self.element_type is not None:
            return names[self.element_type] + _ARRAY
        return names[self.type]


def type_of(entry: KeyValue) -> KeyType:
    """Type of a key of a file."""
    return KeyType(entry.type, entry.element_type)


def named_type(name: str, key: str) -> KeyType:
    """Type by its name, of an array with brackets behind it.

    Raises
    ------
    EditError
        ``bad_value_type``.
    """
    kind = _TYPES.get(name.removesuffix(_ARRAY))
    if kind is None:
        raise EditError(
            code="bad_value_type",
            field=key,
            message=f"type {printable(name, 40)!r} is none of GGUF's: {', '.join(_TYPES)}, and "
            f"with {_ARRAY} behind it an array of one",
        )
    return KeyType(ValueType.ARRAY, kind) if name.endswith(_ARRAY) else KeyType(kind)


def checked_value(key: str, kind: KeyType, given: object) -> Value:
    """What a key of this type holds where somebody gives this for it.

    Parameters
    ----------
    key : str
    kind : KeyType
    given : int, float, bool, str, or list or tuple of these
        A text is read as the type asks: JSON for arrays.

    Returns
    -------
    Value
        Of a 32-bit float the nearest.

    Raises
    ------
    EditError
        ``wrong_type`` for a value of another kind, ``nonsense_value`` for one that the type does
        not hold.
    """
    if kind.element_type is None:
        if kind.type is not ValueType.STRING and isinstance(given, str):
            given = _read(key, kind, given.strip())
        return _scalar(key, kind.type, given, str(kind))
    if isinstance(given, str):
        try:
            given = json.loads(given)
        except (ValueError, RecursionError):
            _refuse_type(key, given, kind, "a JSON array, as [1, 2]")
    if not isinstance(given, (list, tuple)):
        _refuse_type(key, given, kind, "a JSON array, as [1, 2]")
    return tuple(_scalar(key, kind.element_type, each, str(kind)) for each in given)


def _read(key: str, kind: KeyType, text: str) -> Scalar:
    if kind.type is ValueType.BOOL:
        if text.lower() not in _TRUTHS:
            _refuse_type(key, text, kind, "true or false")
        return _TRUTHS[text.lower()]
    if kind.type in {ValueType.FLOAT32, ValueType.FLOAT64}:
        try:
            return float(text)
        except ValueError:
            _refuse_type(key, text, kind, "a number")
    # More digits than any type holds take Python long to read.
    if re.fullmatch(r"[+-]?[0-9]{1,40}", text) is None:
        _refuse_type(key, text, kind, "a whole number")
    return int(text)


def _scalar(key: str, kind: ValueType, given: object, name: str) -> Scalar:
    if kind is ValueType.STRING:
        return _text(key, given, name)
    if kind is ValueType.BOOL:
        if not isinstance(given, bool):
            _refuse_type(key, given, name, "true or false")
        return given
    if kind in {ValueType.FLOAT32, ValueType.FLOAT64}:
        if isinstance(given, bool) or not isinstance(given, (int, float)):
            _refuse_type(key, given, name, "a number")
        return _real(key, kind, given, name)
    if isinstance(given, bool) or not isinstance(given, int):
        _refuse_type(key, given, name, "a whole number")
    form = FORMATS[kind]
    values = 2 ** (8 * struct.calcsize(form))
    low = 0 if form[1].isupper() else -values // 2
    high = low + values - 1
    if not low <= given <= high:
        _refuse_value(key, given, f"{name} holds {low:,} to {high:,}")
    return given


def _text(key: str, given: object, name: str) -> str:
    if not isinstance(given, str):
        _refuse_type(key, given, name, "a text")
    try:
        given.encode("utf-8")
    except UnicodeEncodeError:
        raise EditError(
            code="bad_text", field=key, message="the value is not UTF-8, as all texts of GGUF are"
        ) from None
    return given


def _real(key: str, kind: ValueType, given: float, name: str) -> float:
    try:
        value: float = struct.unpack(FORMATS[kind], struct.pack(FORMATS[kind], given))[0]
    except (OverflowError, struct.error):
        value = math.inf
    if not math.isfinite(value):
        _refuse_value(key, given, f"a finite number that {name} holds is expected")
    return value


def _refuse_type(key: str, given: object, kind: KeyType | str, expected: str) -> NoReturn:
    raise EditError(
        code="wrong_type",
        field=key,
        message=f"is of type {kind}: expected {expected}, found {printable(repr(given), 80)}",
    )


def _refuse_value(key: str, given: object, expected: str) -> NoReturn:
    raise EditError(
        code="nonsense_value", field=key, message=f"{expected}, found {printable(str(given), 80)}"
    )
