"""Payloads to Python values."""

from __future__ import annotations

import struct

from ggufext.errors import HeaderError
from ggufext.header.pure.types import STRING, VALUE_TYPES, Scalar, smallest
from ggufext.header.pure.window import Bytes

_LENGTH = struct.Struct("<Q")


def decode_value(
    payload: bytes, *, value_type: int, element_type: int | None, count: int
) -> Scalar | tuple[Scalar, ...]:
    """Value of a payload in memory; one that was indexed always fits."""
    type_ = value_type if element_type is None else element_type
    values = _strings(payload, count) if type_ == STRING else _numbers(payload, type_, count)
    return values[0] if element_type is None else values


def read_value(
    fd: int, *, start: int, end: int, value_type: int, element_type: int | None, count: int
) -> Scalar | tuple[Scalar, ...]:
    """Value of a payload in a file, which may have changed unseen."""
    source = Bytes(end, fd=fd)
    source.position = start
    payload = source.take(end - start)
    return decode_value(payload, value_type=value_type, element_type=element_type, count=count)


def _numbers(payload: bytes, type_: int, count: int) -> tuple[Scalar, ...]:
    if len(payload) != smallest(type_) * count:
        raise _changed()
    return struct.unpack(f"<{count}{VALUE_TYPES[type_][1]}", payload)


def _strings(payload: bytes, count: int) -> tuple[str, ...]:
    values, at, unpack = [], 0, _LENGTH.unpack_from
    for _ in range(count):
        if at + 8 > len(payload):
            raise _changed()
        (length,) = unpack(payload, at)
        start, at = at + 8, at + 8 + length
        values.append(payload[start:at].decode(errors="surrogateescape"))
    if at != len(payload):
        raise _changed()
    return tuple(values)


def _changed() -> HeaderError:
    return HeaderError(
        code="changed_meanwhile",
        message="the value is not what the header said when it was read: read the file again when "
        "nothing writes to it",
    )
