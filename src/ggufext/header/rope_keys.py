"""The keys of rotation and attention that llama.cpp knows, and values checked as they are read.

Which architectures read those of `READ_BY_SOME` stands in architectures.json.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NoReturn

from ggufext.errors import HeaderError, printable
from ggufext.header.frequencies import Yarn
from ggufext.header.header import ValueType

if TYPE_CHECKING:
    from ggufext.header.architectures import Architecture
    from ggufext.header.header import Header

CONTEXT_LENGTH = "context_length"
FREQ_BASE = "rope.freq_base"
FREQ_BASE_SWA = "rope.freq_base_swa"
DIMENSION_COUNT = "rope.dimension_count"
DIMENSION_COUNT_SWA = "rope.dimension_count_swa"
DIMENSION_SECTIONS = "rope.dimension_sections"
SCALING_TYPE = "rope.scaling.type"
SCALING_FACTOR = "rope.scaling.factor"
SCALE_LINEAR = "rope.scale_linear"
ORIGINAL_LENGTH = "rope.scaling.original_context_length"
ATTN_FACTOR = "rope.scaling.attn_factor"
SCALING_ALPHA = "rope.scaling.alpha"
SCALING_FINETUNED = "rope.scaling.finetuned"
YARN_EXT_FACTOR = "rope.scaling.yarn_ext_factor"
YARN_ATTN_FACTOR = "rope.scaling.yarn_attn_factor"
YARN_BETA_FAST = "rope.scaling.yarn_beta_fast"
YARN_BETA_SLOW = "rope.scaling.yarn_beta_slow"
YARN_LOG_MULTIPLIER = "rope.scaling.yarn_log_multiplier"
HEAD_COUNT = "attention.head_count"
HEAD_COUNT_KV = "attention.head_count_kv"
KEY_LENGTH = "attention.key_length"
VALUE_LENGTH = "attention.value_length"
KEY_LENGTH_MLA = "attention.key_length_mla"
KEY_LENGTH_SWA = "attention.key_length_swa"
VALUE_LENGTH_SWA = "attention.value_length_swa"
SLIDING_WINDOW = "attention.sliding_window"
SLIDING_WINDOW_PATTERN = "attention.sliding_window_pattern"
ROPE_PATTERN = "attention.rope_pattern"
SHARED_KV_LAYERS = "attention.shared_kv_layers"
RECURRENT_LAYERS = "attention.recurrent_layers"
TEMPERATURE_SCALE = "attention.temperature_scale"
TEMPERATURE_LENGTH = "attention.temperature_length"

#: Keys, without the architecture's prefix, that a plan may write, and their types.
EDITED = {
    CONTEXT_LENGTH: ValueType.UINT32,
    FREQ_BASE: ValueType.FLOAT32,
    FREQ_BASE_SWA: ValueType.FLOAT32,
    SCALING_TYPE: ValueType.STRING,
    SCALING_FACTOR: ValueType.FLOAT32,
    ORIGINAL_LENGTH: ValueType.UINT32,
    ATTN_FACTOR: ValueType.FLOAT32,
    YARN_EXT_FACTOR: ValueType.FLOAT32,
    YARN_BETA_FAST: ValueType.FLOAT32,
    YARN_BETA_SLOW: ValueType.FLOAT32,
}

#: Keys that converters write for many architectures and llama.cpp reads for some.
READ_BY_SOME = (
    YARN_EXT_FACTOR,
    YARN_ATTN_FACTOR,
    YARN_BETA_FAST,
    YARN_BETA_SLOW,
    YARN_LOG_MULTIPLIER,
    SCALING_ALPHA,
    TEMPERATURE_SCALE,
    TEMPERATURE_LENGTH,
)


def unread_suffixes(entry: Architecture) -> tuple[str, ...]:
    """Keys, without prefix, that converters write and llama.cpp does not use here."""
    return tuple(key for key in READ_BY_SOME if key not in entry.reads)


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
        if not self.is_array(suffix):
            value = self.count(suffix, at_least=0)
            return None if value is None else (value,) * layers
        numbers = self.numbers(suffix)[:layers]
        if len(numbers) < layers or min(numbers) < 0:
            self.nonsense(suffix, f"{layers} whole numbers, one a layer")
        return numbers

    def is_array(self, suffix: str) -> bool:
        """Whether the key is there and holds an array."""
        entry = self.header.keys.get(self.prefix + suffix)
        return entry is not None and entry.type is ValueType.ARRAY

    def flags(self, suffix: str) -> tuple[bool, ...]:
        """Truth values of an array, which some files hold as numbers; empty when there is none."""
        kinds = (ValueType.BOOL, ValueType.INT32, ValueType.UINT32)
        return tuple(map(bool, self.header.array(self.prefix + suffix, *kinds) or ()))

    def numbers(self, suffix: str) -> tuple[int, ...]:
        """Whole numbers of an array; empty when there is none."""
        values = self.header.array(self.prefix + suffix, ValueType.INT32, ValueType.UINT32)
        return tuple(int(value) for value in values or ())


def yarn_of(read: KeyReader, entry: Architecture) -> Yarn:
    """What a file's keys make of YaRN for an architecture.

    Raises
    ------
    HeaderError
        ``wrong_type`` or ``nonsense_value``.
    """

    def found(key: str) -> float | None:
        return read.finite(key) if key in entry.reads else None

    def positive(key: str, default: float) -> float:
        return (read.positive(key) if key in entry.reads else None) or default

    ext_factor = found(YARN_EXT_FACTOR)
    all_dim = (found(YARN_LOG_MULTIPLIER) or 0.0) / entry.yarn_log_multiplier_unit
    return Yarn(
        beta_fast=positive(YARN_BETA_FAST, entry.yarn_beta_fast),
        beta_slow=positive(YARN_BETA_SLOW, 1.0),
        # llama.cpp takes a negative one for none.
        ext_factor=None if ext_factor is None or ext_factor < 0.0 else ext_factor,
        attn_factor=positive(YARN_ATTN_FACTOR, 1.0),
        mscale=all_dim if all_dim and entry.mscale_is_multiplier else 1.0,
        mscale_all_dim=all_dim,
    )
