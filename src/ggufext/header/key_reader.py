"""Values of one architecture's keys, checked as they are read."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NoReturn

from ggufext.errors import HeaderError, printable
from ggufext.header.header import ValueType

if TYPE_CHECKING:
    from ggufext.header.header import Header


class KeyReader:
    """Checked values of one architecture's keys, which are named without its prefix."""

    def __init__(self, header: Header, prefix: str) -> None:
        self.header = header
        self.prefix = prefix

    def nonsense(self, suffix: str, expected: str, *, advice: str = "") -> NoReturn:
        """Refuse the value of a key that is there: ``nonsense_value``."""
        key = self.prefix + suffix
        if not advice and isinstance(self.header.value(key), int | float):
            advice = ", or correct the key with gguf-set-metadata"
        raise HeaderError(
            code="nonsense_value",
            field=key,
            offset=self.header.keys[key].start,
            path=self.header.path,
            message=f"is {printable(repr(self.header.value(key)), 80)}; expected {expected}; "
            f"convert the model again{advice}",
        )

    def count(self, suffix: str, *, at_least: int = 1) -> int | None:
        """Whole number, None when there is no such key."""
        value = self.header.integer(self.prefix + suffix)
        if value is not None and value < at_least:
            self.nonsense(suffix, f"{at_least} or more")
        return value

    def required(self, suffix: str) -> int:
        """Whole number, 1 or more, of a key that must be there."""
        value = self.count(suffix)
        if value is None:
            self.missing(suffix)
        return value

    def missing(self, suffix: str) -> NoReturn:
        """Refuse a file without the key: ``missing_key``."""
        raise HeaderError(
            code="missing_key",
            field=self.prefix + suffix,
            path=self.header.path,
            message="is not in the file; llama.cpp needs it; convert the model again",
        )

    def positive(self, suffix: str, *, above: float = 0.0) -> float | None:
        """Finite number above a bound, None when there is no such key."""
        value = self.header.number(self.prefix + suffix)
        if value is not None and not (math.isfinite(value) and value > above):
            self.nonsense(suffix, f"a finite number above {above:g}")
        return value

    def finite(self, suffix: str) -> float | None:
        """Finite number, None when there is no such key."""
        value = self.header.number(self.prefix + suffix)
        if value is not None and not math.isfinite(value):
            self.nonsense(suffix, "a finite number")
        return value

    def factor(self, suffix: str) -> float | None:
        """Finite number, 0 or more, None when there is no such key."""
        value = self.header.number(self.prefix + suffix)
        if value is not None and not (math.isfinite(value) and value >= 0.0):
            self.nonsense(suffix, "a finite number, 0 or more")
        return value

    def per_layer(self, suffix: str, layers: int) -> tuple[int, ...] | None:
        """One number a layer, from an array or from one number for all."""
        entry = self.header.keys.get(self.prefix + suffix)
        if entry is None or entry.type is not ValueType.ARRAY:
            value = self.count(suffix, at_least=0)
            return None if value is None else (value,) * layers
        values = self.header.array(entry.key, ValueType.INT32, ValueType.UINT32) or ()
        numbers = tuple(int(v) for v in values[:layers])
        if len(numbers) < layers or min(numbers) < 0:
            self.nonsense(suffix, f"{layers} whole numbers, one a layer")
        return numbers

    def numbers(self, suffix: str) -> tuple[int, ...]:
        """Whole numbers of an array; empty when there is none."""
        values = self.header.array(self.prefix + suffix, ValueType.INT32, ValueType.UINT32)
        return tuple(int(value) for value in values or ())
