"""The rules of a GGUF header in plain Python: what the native reader must agree with.

Source: the GGUF specification in ggml's docs, and what llama.cpp accepts (ggml/src/gguf.cpp of
llama-cpp-python 0.3.36). Where the two leave room, the stricter rule holds.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

# Type number: struct format of a value; STRING and ARRAY have none.
FORMATS = dict(enumerate("BbHhIif?")) | {10: "Q", 11: "q", 12: "d"}
UINT32, BOOL, STRING, ARRAY = 4, 7, 8, 9

# Bytes that all keys may take.
KEYS_LIMIT = 2**28

# Type number: name, elements of a block, bytes of a block.
TENSOR_TYPES = {
    0: ("F32", 1, 4),
    1: ("F16", 1, 2),
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    9: ("Q8_1", 32, 36),
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66),
    17: ("IQ2_XS", 256, 74),
    18: ("IQ3_XXS", 256, 98),
    19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18),
    21: ("IQ3_S", 256, 110),
    22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136),
    24: ("I8", 1, 1),
    25: ("I16", 1, 2),
    26: ("I32", 1, 4),
    27: ("I64", 1, 8),
    28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56),
    30: ("BF16", 1, 2),
    34: ("TQ1_0", 256, 54),
    35: ("TQ2_0", 256, 66),
    39: ("MXFP4", 32, 17),
    40: ("NVFP4", 64, 36),
    41: ("Q1_0", 128, 18),
    42: ("Q2_0", 64, 18),
}


class Refused(Exception):  # noqa: N818
    """The header breaks a rule."""

    def __init__(self, code: str, field: str, offset: int) -> None:
        super().__init__(code, field, offset)
        self.code, self.field, self.offset = code, field, offset


@dataclass
class Entry:
    key: str
    type: int
    element_type: int | None
    count: int
    start: int
    value_start: int
    end: int
    value: object


@dataclass
class Reference:
    """One pass over the bytes of a header; afterwards its attributes say what it holds."""

    data: bytes
    file_size: int
    version: int = 0
    alignment: int = 32
    entries: list[Entry] = field(default_factory=list)
    tensors: list[tuple[str, tuple[int, ...], str, int, int]] = field(default_factory=list)
    keys_end: int = 0
    infos_end: int = 0
    data_offset: int = 0
    data_end: int = 0
    position: int = 0
    place: str = ""  # the entry being read
    offset_positions: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.data = self.data[: self.file_size]
        self.read_magic()
        self.place = "version"
        self.version = self.number("I")
        self.require(self.version in {2, 3}, "unsupported_version", 4)
        self.place = "tensor count"
        tensor_count = self.number("Q")
        self.place = "key count"
        key_count = self.number("Q")
        self.place = "tensor count"
        self.require(tensor_count <= min(self.remaining // 25, 2**20), "count_too_large", 8)
        self.place = "key count"
        self.require(key_count <= min(self.remaining // 14, 2**16), "count_too_large", 16)
        self.read_keys(key_count)
        self.read_alignment()
        self.read_tensors(tensor_count)
        self.place_data()

    @property
    def remaining(self) -> int:
        return len(self.data) - self.position

    def require(self, holds: bool, code: str, offset: int) -> None:
        if not holds:
            raise Refused(code, self.place, offset)

    def take(self, size: int) -> bytes:
        self.require(size <= self.remaining, "truncated", self.position)
        self.position += size
        return self.data[self.position - size : self.position]

    def number(self, format_: str) -> int:
        (value,) = struct.unpack("<" + format_, self.take(struct.calcsize("<" + format_)))
        return int(value)

    def string(self, limit: int = 2**30) -> bytes:
        start = self.position
        length = self.number("Q")
        self.require(length < limit, "string_too_long", start)
        self.require(length <= self.remaining, "string_too_long", start)
        return self.take(length)

    def read_magic(self) -> None:
        self.place = "magic"
        magic = self.data[:4]
        self.require(magic != b"GGUX", "interrupted_edit", 0)
        self.require(magic != b"" and b"GGUF".startswith(magic), "not_gguf", 0)
        self.take(4)

    def read_keys(self, count: int) -> None:
        for i in range(count):
            self.place = f"key {i + 1} of {count}"
            entry = self.read_entry()
            self.require(entry.end <= KEYS_LIMIT, "header_too_large", entry.start)
            self.entries.append(entry)
        self.keys_end = self.position
        seen = set()
        for entry in self.entries:
            self.place = shortened(entry.key)
            self.require(entry.key not in seen, "duplicate_key", entry.start)
            seen.add(entry.key)

    def read_entry(self) -> Entry:
        start = self.position
        self.require(
            self.remaining < 8 or self.data[start : start + 8] != bytes(8), "empty_key", start
        )
        stored = self.string(limit=2**16)
        try:
            key = stored.decode()
        except UnicodeDecodeError:
            raise Refused("key_not_utf8", self.place, start) from None
        self.require("\0" not in key, "key_has_nul", start)
        self.place = shortened(key)

        type_ = self.value_type()
        element_type, count = None, 1
        if type_ == ARRAY:
            element_type, count = self.array_head()
        value_start = self.position
        if element_type is None:
            value = self.value(type_)
        else:
            value = tuple(self.value(element_type) for _ in range(count))
        return Entry(key, type_, element_type, count, start, value_start, self.position, value)

    def value_type(self) -> int:
        number = self.number("i")
        self.require(0 <= number <= 12, "bad_value_type", self.position - 4)
        return number

    def array_head(self) -> tuple[int, int]:
        element_type = self.value_type()
        self.require(element_type != ARRAY, "nested_array", self.position - 4)
        start = self.position
        count = self.number("Q")
        size = 8 if element_type == STRING else struct.calcsize("<" + FORMATS[element_type])
        self.require(count < 2**30 and count * size <= self.remaining, "array_too_long", start)
        return element_type, count

    def value(self, type_: int) -> object:
        if type_ == STRING:
            return self.string().decode(errors="surrogateescape")
        if type_ == BOOL:
            return self.take(1) != b"\0"
        format_ = "<" + FORMATS[type_]
        return struct.unpack(format_, self.take(struct.calcsize(format_)))[0]

    def read_alignment(self) -> None:
        for entry in self.entries:
            if entry.key == "general.alignment":
                self.place = entry.key
                allowed = {2**power for power in range(21)}
                valid = entry.type == UINT32 and entry.value in allowed
                self.require(valid, "bad_alignment", entry.value_start)
                assert isinstance(entry.value, int)
                self.alignment = entry.value

    def read_tensors(self, count: int) -> None:
        starts = []
        for i in range(count):
            self.place = f"tensor {i + 1} of {count}"
            starts.append(self.position)
            self.tensors.append(self.read_tensor())
        self.infos_end = self.position
        seen = set()
        for start, (name, *_) in zip(starts, self.tensors, strict=True):
            self.place = name
            self.require(name not in seen, "duplicate_tensor", start)
            seen.add(name)

    def read_tensor(self) -> tuple[str, tuple[int, ...], str, int, int]:
        start = self.position
        length = self.number("Q")
        self.require(0 < length < 64, "tensor_name", start)
        name = self.take(length).decode(errors="surrogateescape")
        self.require("\0" not in name, "tensor_name", start)
        self.place = name

        shape_start = self.position
        dimensions = self.number("I")
        self.require(dimensions <= 4, "tensor_shape", shape_start)
        shape: list[int] = []
        elements = 1
        for _ in range(dimensions):
            shape.append(self.number("q"))
            self.require(shape[-1] > 0, "tensor_shape", self.position - 8)
            elements *= shape[-1]
            self.require(elements < 2**63, "tensor_shape", shape_start)

        type_start = self.position
        type_ = self.number("i")
        self.require(type_ in TENSOR_TYPES, "tensor_type", type_start)
        type_name, block_size, block_bytes = TENSOR_TYPES[type_]
        row = shape[0] if shape else 1
        self.require(row % block_size == 0, "tensor_shape", type_start)
        size = elements // block_size * block_bytes
        self.require(size < 2**64, "tensor_shape", type_start)
        self.offset_positions.append(self.position)
        return name, tuple(shape), type_name, self.number("Q"), size

    def place_data(self) -> None:
        self.data_offset = self.data_end = self.infos_end
        if not self.tensors:
            return
        self.data_offset += -self.data_offset % self.alignment
        expected = 0
        for position, (name, _, _, offset, size) in zip(
            self.offset_positions, self.tensors, strict=True
        ):
            self.place = name
            self.require(offset == expected, "tensor_offset", position)
            absurd = size > 2**62 or offset > 2**62
            self.require(not absurd, "data_past_end", self.data_offset + offset)
            self.data_end = self.data_offset + offset + size
            expected = offset + size + -(offset + size) % self.alignment
        for name, _, _, offset, size in self.tensors:
            start = self.data_offset + offset
            self.place = name
            self.require(start + size <= self.file_size, "data_past_end", start)


def shortened(key: str) -> str:
    """A key as errors name it: at most 200 bytes, cut between characters."""
    stored = key.encode()
    if len(stored) <= 200:
        return key
    return stored[:200].decode(errors="ignore") + "…"
