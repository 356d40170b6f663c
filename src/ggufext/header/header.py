"""The header of a GGUF file: bytes understood, nothing interpreted."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

#: First bytes of every GGUF file.
MAGIC = b"GGUF"

#: What stands in place of the magic while an edit is under way: no loader accepts the file.
POISONED_MAGIC = b"GGUX"

#: ``model.gguf`` is being edited while ``model.gguf.ggufext-journal`` lies beside it.
JOURNAL_SUFFIX = ".ggufext-journal"

#: A scalar or string value of a key, or the decoded elements of an array.
Scalar = int | float | bool | str
Value = Scalar | tuple[Scalar, ...]


class ValueType(IntEnum):
    """Type of a metadata value, as numbered in GGUF files."""

    UINT8 = 0
    INT8 = 1
    UINT16 = 2
    INT16 = 3
    UINT32 = 4
    INT32 = 5
    FLOAT32 = 6
    BOOL = 7
    STRING = 8
    ARRAY = 9
    UINT64 = 10
    INT64 = 11
    FLOAT64 = 12


@dataclass(frozen=True, slots=True)
class KeyValue:
    """One metadata entry: where it lies; its value is decoded on demand by `Header.value`.

    Attributes
    ----------
    key : str
    type : ValueType
        ``ARRAY`` for arrays; then `element_type` says of what.
    element_type : ValueType or None
        Type of an array's elements, None for scalars and strings.
    count : int
        Elements of an array, 1 otherwise.
    start, value_start, end : int
        Bytes in the file: of the entry (the length of its key), of the payload behind the type
        (for arrays: behind element type and count), and of the next entry.
    """

    key: str
    type: ValueType
    element_type: ValueType | None
    count: int
    start: int
    value_start: int
    end: int


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor's description.

    Attributes
    ----------
    name : str
    shape : tuple of int
        Elements per dimension, ggml order (row length first), 1 to 4 entries.
    type : str
        ggml's name of the type: ``"F32"``, ``"Q8_0"`` …
    offset : int
        Bytes from the start of the data.
    size : int
        Bytes of the tensor, without padding.
    """

    name: str
    shape: tuple[int, ...]
    type: str
    offset: int
    size: int
