"""Random GGUF files, whole and broken, the same in every run: for the comparison with other readers
and as what fuzzing starts from.
"""

from __future__ import annotations

import random
import struct

from gguf_bytes import (
    FORMATS,
    STRING,
    TENSOR_TYPES,
    Array,
    Raw,
    Tensor,
    gguf_bytes,
    string_bytes,
)


def number(source: random.Random, type_: int) -> object:
    """A stored number: any bit pattern, often a small one."""
    size = struct.calcsize(FORMATS[type_])
    if source.random() < 0.5:
        return Raw(type_, bytes([source.randrange(2)]) + bytes(size - 1))
    return Raw(type_, source.randbytes(size))


def text(source: random.Random) -> bytes:
    choices = [b"", b"llama", "Ġvocab".encode(), b"\xff\xfe", b"a\0b", b"x" * 300]
    return source.choice(choices) if source.random() < 0.5 else source.randbytes(8)


def value(source: random.Random) -> Raw:
    """A value of any type: scalars and arrays, strings and numbers."""
    type_ = source.choice([*FORMATS, STRING])
    if source.random() < 0.6:
        if type_ == STRING:
            return Raw(STRING, string_bytes(text(source)))
        made = number(source, type_)
        assert isinstance(made, Raw)
        return made
    count = source.choice([0, 1, 2, 3, 40])
    elements = [text(source) if type_ == STRING else number(source, type_) for _ in range(count)]
    return Array(type_, elements)


def generated(source: random.Random) -> bytes:
    """A file that keeps every rule."""
    keys: dict[str, object] = {"general.architecture": "llama"}
    for i in range(source.randrange(8)):
        keys[f"llama.key_{i}_{source.choice(['a', 'ä', 'k' * 90])}"] = value(source)
    tensors = []
    for i in range(source.randrange(5)):
        kind = source.choice(sorted(TENSOR_TYPES))
        row = TENSOR_TYPES[kind][1] * source.randint(1, 2)
        further = [source.randint(1, 3) for _ in range(source.randrange(4))]
        tensors.append(Tensor(f"blk.{i}.{'w' * source.choice([1, 50])}", (row, *further), kind))
    return gguf_bytes(
        keys,
        tensors,
        version=source.choice([2, 3]),
        alignment=source.choice([32, 32, 1, 8, 64, 4096]),
        pad_last=source.random() < 0.5,
    )


def changed(source: random.Random, file: bytes) -> bytes:
    """A file with one to three changes, more often in its front."""
    data = bytearray(file)
    numbers = [0, 1, 2, 8, 9, 12, 13, 63, 64, 2**16, 2**20, 2**30 - 1, 2**30, 2**31, 2**63 - 1, -1]
    for _ in range(source.randint(1, 3)):
        at = source.randrange(max(1, min(len(data), source.choice([24, 200, 2000]))))
        match source.choice(["byte", "bit", "number", "insert", "remove", "cut"]):
            case "byte":
                data[at : at + 1] = source.randbytes(1)
            case "bit":
                data[at : at + 1] = bytes([(data[at] if at < len(data) else 0) ^ 1])
            case "number":
                size = source.choice([4, 8])
                data[at : at + size] = (source.choice(numbers) % 2**64).to_bytes(8, "little")[:size]
            case "insert":
                data[at:at] = source.randbytes(source.randint(1, 9))
            case "remove":
                del data[at : at + source.randint(1, 9)]
            case "cut":
                del data[max(4, source.randrange(len(data) + 1)) :]
    return bytes(data)


def files(count: int) -> list[bytes]:
    """The same files in every run: two of five as generated, the others changed."""
    source = random.Random(2000)
    made = []
    for i in range(count):
        file = generated(source)
        made.append(file if i % 5 < 2 else changed(source, file))
    return made
