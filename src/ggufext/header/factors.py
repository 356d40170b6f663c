"""Frequency-factor tensors: a value a pair, by which llama.cpp divides its inverse frequency."""

from __future__ import annotations

import math
import struct
from typing import TYPE_CHECKING

from ggufext.errors import HeaderError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ggufext.header.header import Header, TensorInfo

#: For every context.
ROPE_FREQS = "rope_freqs.weight"
#: For contexts above rope.scaling.original_context_length.
ROPE_FACTORS_LONG = "rope_factors_long.weight"
#: For contexts up to it.
ROPE_FACTORS_SHORT = "rope_factors_short.weight"

FACTOR_TENSORS = (ROPE_FREQS, ROPE_FACTORS_LONG, ROPE_FACTORS_SHORT)

#: Most pairs of a head taken for real.
MOST_PAIRS = 32_768

_FLOAT_BYTES = 4


def factor_tensors(header: Header) -> tuple[TensorInfo, ...]:
    """Descriptions of the frequency-factor tensors of a file."""
    return tuple(tensor for tensor in header.tensors if tensor.name in FACTOR_TENSORS)


def check_factor_tensor(header: Header, tensor: TensorInfo) -> None:
    """Refuse a factor tensor that ggml could not rotate with.

    Raises
    ------
    HeaderError
        ``tensor_type`` or ``tensor_shape``.
    """
    if tensor.type != "F32":
        raise HeaderError(
            code="tensor_type",
            field=tensor.name,
            path=header.path,
            message=f"has type {tensor.type}; frequency factors must be F32: convert the model "
            "again",
        )
    if len(tensor.shape) != 1 or tensor.shape[0] > MOST_PAIRS:
        raise HeaderError(
            code="tensor_shape",
            field=tensor.name,
            path=header.path,
            message=f"has shape {tensor.shape}; expected one number a pair, at most "
            f"{MOST_PAIRS:,}: convert the model again",
        )


def read_factors(
    header: Header, read: Callable[[TensorInfo], bytes]
) -> tuple[tuple[str, tuple[float, ...]], ...]:
    """Values of the frequency-factor tensors, by name in the order of the file.

    Parameters
    ----------
    header : Header
    read : callable
        Gives the bytes of a tensor.

    Raises
    ------
    HeaderError
        ``tensor_type``, ``tensor_shape``, or ``nonsense_value`` for a factor that is not a finite
        number above 0.
    """
    found = []
    for tensor in factor_tensors(header):
        check_factor_tensor(header, tensor)
        values = decode_factors(read(tensor))
        wrong = next((v for v in values if not (math.isfinite(v) and v > 0.0)), None)
        if wrong is not None:
            raise HeaderError(
                code="nonsense_value",
                field=tensor.name,
                path=header.path,
                message=f"holds the factor {wrong!r}; expected finite numbers above 0; convert "
                "the model again",
            )
        found.append((tensor.name, values))
    return tuple(found)


def factors_in_effect(
    values: Mapping[str, tuple[float, ...]], *, is_long: bool
) -> tuple[float, ...] | None:
    """The factors that llama.cpp uses (llama_model::get_rope_factors); None: none.

    Parameters
    ----------
    values : mapping of str to tuple of float
        Of the factor tensors, by name.
    is_long : bool
        Whether the context is above rope.scaling.original_context_length.
    """
    if ROPE_FREQS in values:
        return values[ROPE_FREQS]
    return values.get(ROPE_FACTORS_LONG if is_long else ROPE_FACTORS_SHORT)


def encode_factors(values: tuple[float, ...]) -> bytes:
    """Factors as a tensor holds them: little-endian float32."""
    return struct.pack(f"<{len(values)}f", *values)


def decode_factors(data: bytes) -> tuple[float, ...]:
    """Factors from a tensor's bytes; the inverse of `encode_factors`."""
    return struct.unpack(f"<{len(data) // _FLOAT_BYTES}f", data)
