"""GGUF files made byte by byte, valid and broken, for tests.

>>> gguf_bytes(
...     keys={"general.architecture": "llama", "llama.context_length": U32(4096)},
...     tensors=[Tensor("token_embd.weight", (32, 2), "Q8_0")],
... )

Plain Python values become STRING, BOOL, UINT32, FLOAT32 and arrays of these; `U8` to `F64` and
`Array` choose another type; `Raw` writes anything.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

UINT8, INT8, UINT16, INT16, UINT32, INT32, FLOAT32, BOOL, STRING, ARRAY, UINT64, INT64, FLOAT64 = (
    range(13)
)

FORMATS = {
    UINT8: "<B",
    INT8: "<b",
    UINT16: "<H",
    INT16: "<h",
    UINT32: "<I",
    INT32: "<i",
    FLOAT32: "<f",
    BOOL: "<?",
    UINT64: "<Q",
    INT64: "<q",
    FLOAT64: "<d",
}

#: Name: number in the file, elements of a block, bytes of a block.
TENSOR_TYPES = {
    "F32": (0, 1, 4),
    "F16": (1, 1, 2),
    "Q4_0": (2, 32, 18),
    "Q8_0": (8, 32, 34),
    "Q4_K": (12, 256, 144),
    "Q6_K": (14, 256, 210),
    "I32": (26, 1, 4),
    "BF16": (30, 1, 2),
}


@dataclass(frozen=True)
class Raw:
    """A value of any type number, with any bytes behind it."""

    type: int
    payload: bytes


def _number(type_: int, value: float) -> Raw:
    return Raw(type_, struct.pack(FORMATS[type_], value))


def U8(value: int) -> Raw:  # noqa: N802
    return _number(UINT8, value)


def I8(value: int) -> Raw:  # noqa: N802
    return _number(INT8, value)


def U16(value: int) -> Raw:  # noqa: N802
    return _number(UINT16, value)


def I16(value: int) -> Raw:  # noqa: N802
    return _number(INT16, value)


def U32(value: int) -> Raw:  # noqa: N802
    return _number(UINT32, value)


def I32(value: int) -> Raw:  # noqa: N802
    return _number(INT32, value)


def F32(value: float) -> Raw:  # noqa: N802
    return _number(FLOAT32, value)


def U64(value: int) -> Raw:  # noqa: N802
    return _number(UINT64, value)


def I64(value: int) -> Raw:  # noqa: N802
    return _number(INT64, value)


def F64(value: float) -> Raw:  # noqa: N802
    return _number(FLOAT64, value)


def string_bytes(text: str | bytes, *, length: int | None = None) -> bytes:
    """A string as files hold it; `length` claims another length than it has."""
    data = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(data) if length is None else length) + data


def Array(  # noqa: N802
    element_type: int, elements: Iterable[object], *, count: int | None = None
) -> Raw:
    """An array of a given type; `count` claims another length than it has."""
    values = list(elements)
    payload = b"".join(_element(element_type, value) for value in values)
    head = struct.pack("<iQ", element_type, len(values) if count is None else count)
    return Raw(ARRAY, head + payload)


def _element(type_: int, value: object) -> bytes:
    if isinstance(value, Raw):
        return value.payload
    if type_ == STRING:
        assert isinstance(value, str | bytes)
        return string_bytes(value)
    return struct.pack(FORMATS[type_], value)


def typed(value: object) -> Raw:
    """A plain Python value with the type that files usually give it."""
    if isinstance(value, Raw):
        return value
    if isinstance(value, bool):
        return _number(BOOL, value)
    if isinstance(value, int):
        return U32(value)
    if isinstance(value, float):
        return F32(value)
    if isinstance(value, str | bytes):
        return Raw(STRING, string_bytes(value))
    if isinstance(value, list | tuple) and value:
        elements = [typed(element) for element in value]
        return Array(elements[0].type, elements)
    raise TypeError(f"no GGUF type for {value!r}")


def key_bytes(key: str | bytes, value: object) -> bytes:
    """One metadata entry as files hold it."""
    raw = typed(value)
    return string_bytes(key) + struct.pack("<i", raw.type) + raw.payload


@dataclass(frozen=True)
class Tensor:
    """One tensor; `number` and `offset` override what a valid file would say."""

    name: str | bytes
    shape: Sequence[int]
    type: str = "F32"
    data: bytes | None = field(default=None, repr=False)
    number: int | None = None
    offset: int | None = None

    @property
    def size(self) -> int:
        """Bytes of data that type and shape ask for."""
        _, block_size, block_bytes = TENSOR_TYPES[self.type]
        elements = 1
        for dimension in self.shape:
            elements *= dimension
        return elements // block_size * block_bytes

    def info_bytes(self, offset: int) -> bytes:
        """Its description as files hold it."""
        number = TENSOR_TYPES[self.type][0] if self.number is None else self.number
        return (
            string_bytes(self.name)
            + struct.pack("<I", len(self.shape))
            + b"".join(struct.pack("<q", dimension) for dimension in self.shape)
            + struct.pack("<iQ", number, offset if self.offset is None else self.offset)
        )

    def data_bytes(self) -> bytes:
        """Its data: that given, or bytes that count up."""
        if self.data is not None:
            return self.data
        return (bytes(range(251)) * (self.size // 251 + 1))[: self.size]


def padding(size: int, alignment: int) -> bytes:
    """Zero bytes up to the next multiple of an alignment."""
    return bytes(-size % alignment)


def header_bytes(
    keys: Mapping[str, object] | Iterable[tuple[str | bytes, object]] = (),
    tensors: Sequence[Tensor] = (),
    *,
    version: int = 3,
    alignment: int = 32,
    magic: bytes = b"GGUF",
    key_count: int | None = None,
    tensor_count: int | None = None,
) -> bytes:
    """A header without padding and data; arguments as for `gguf_bytes`."""
    entries = list(keys.items() if isinstance(keys, Mapping) else keys)
    if alignment != 32:
        entries.append(("general.alignment", U32(alignment)))
    infos = []
    offset = 0
    for tensor in tensors:
        infos.append(tensor.info_bytes(offset))
        offset += tensor.size + -tensor.size % alignment
    counts = struct.pack(
        "<IQQ",
        version,
        len(tensors) if tensor_count is None else tensor_count,
        len(entries) if key_count is None else key_count,
    )
    metadata = b"".join(key_bytes(key, value) for key, value in entries)
    return magic + counts + metadata + b"".join(infos)


def gguf_bytes(
    keys: Mapping[str, object] | Iterable[tuple[str | bytes, object]] = (),
    tensors: Sequence[Tensor] = (),
    *,
    version: int = 3,
    alignment: int = 32,
    magic: bytes = b"GGUF",
    key_count: int | None = None,
    tensor_count: int | None = None,
    pad_last: bool = True,
) -> bytes:
    """A whole file.

    Parameters
    ----------
    keys : mapping, or pairs where a key repeats or is no UTF-8
        In the order of the file.
    tensors : sequence of Tensor
    version, magic : int, bytes
    alignment : int
        Bytes; a value other than 32 is also written as a key.
    key_count, tensor_count : int, optional
        Claim another number than there are.
    pad_last : bool
        Whether zero bytes follow the last tensor up to the alignment.
    """
    file = header_bytes(
        keys,
        tensors,
        version=version,
        alignment=alignment,
        magic=magic,
        key_count=key_count,
        tensor_count=tensor_count,
    )
    for tensor in tensors:
        file += padding(len(file), alignment) + tensor.data_bytes()
    return file + padding(len(file), alignment) if tensors and pad_last else file


#: Keys of the smallest llama that llama.cpp loads: one layer, a head of 32 values, nameless tokens.
SMALLEST_LLAMA: Mapping[str, object] = {
    "general.architecture": "llama",
    "llama.context_length": U32(2048),
    "llama.block_count": U32(1),
    "llama.embedding_length": U32(32),
    "llama.feed_forward_length": U32(32),
    "llama.attention.head_count": U32(1),
    "llama.attention.layer_norm_rms_epsilon": F32(1e-5),
    "llama.vocab_size": U32(400),
    "tokenizer.ggml.model": "none",
}

#: Its tensors.
SMALLEST_TENSORS = (
    Tensor("token_embd.weight", (32, 400), "Q8_0"),
    Tensor("output_norm.weight", (32,)),
    *(Tensor(f"blk.0.{name}_norm.weight", (32,)) for name in ("attn", "ffn")),
    *(
        Tensor(f"blk.0.{name}.weight", (32, 32), "Q8_0")
        for name in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_down", "ffn_up")
    ),
)
