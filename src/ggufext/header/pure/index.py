"""The index of a header, and every rule that makes one."""

from __future__ import annotations

import os
import stat
import struct
from dataclasses import dataclass, field

from ggufext.errors import HeaderError
from ggufext.header.pure.foreign import described, escaped
from ggufext.header.pure.types import ARRAY, GGML_TYPES, STRING, UINT32, VALUE_TYPES, smallest
from ggufext.header.pure.window import WINDOW, Bytes

# Limits of llama.cpp (gguf.cpp, ggml.h), of the GGUF specification (keys), and our own: alignment,
# and what no model has. A file of holes can claim any size, and editing holds a header in memory.
_STRING_LIMIT = _ARRAY_LIMIT = 2**30
_KEY_LIMIT = 2**16
_NAME_LIMIT = 64
_ALIGNMENT_LIMIT = 2**20
_KEYS_LIMIT = 2**28
_ABSURD_SIZE = 2**62

#: Bytes of a value that are kept with the index.
_KEPT_BYTES = 4096
#: Bytes of the start of a foreign file that say what it is.
_FOREIGN_BYTES = 512

_DAMAGED = "the file is damaged or cut off: get it again"
_WRITTEN_WRONG = "get the file again, or write it again with the program that made it"


#: The numbers that the structure of a header is made of.
_NUMBERS = {format_: struct.Struct("<" + format_) for format_ in "IQiq"}


@dataclass(slots=True)
class KeySpan:
    """Where one key lies, as `ggufext.header.header.KeyValue`, and its payload if it is small."""

    key: str
    type: int
    element_type: int | None
    count: int
    start: int
    value_start: int
    end: int
    kept: bytes | None


@dataclass(slots=True)
class TensorSpan:
    """Where one tensor's description starts, and what it says."""

    start: int
    offset_position: int
    name: str
    shape: tuple[int, ...]
    type: str
    offset: int
    size: int


@dataclass(slots=True)
class HeaderIndex:
    """Index of a header of which every rule was checked; its names are those of `_core`."""

    file_size: int
    version: int = 0
    alignment: int = 32
    keys: list[KeySpan] = field(default_factory=list)
    tensors: list[TensorSpan] = field(default_factory=list)
    keys_end: int = 0
    infos_end: int = 0
    data_offset: int = 0
    data_end: int = 0

    @staticmethod
    def open(fd: int) -> HeaderIndex:
        """Read through a descriptor, which keeps its position."""
        try:
            status = os.fstat(fd)
        except OSError as error:
            raise HeaderError(
                code="unreadable",
                message=f"the system could not say what this file is: {error.strerror}",
            ) from error
        if not stat.S_ISREG(status.st_mode):
            raise HeaderError(
                code="not_gguf",
                message="found a directory, pipe or device, expected a GGUF file: name the file",
            )
        return _indexed(Bytes(status.st_size, fd=fd))

    @staticmethod
    def parse(data: bytes, *, file_size: int) -> HeaderIndex:
        """Read from memory, which holds the start of a file of `file_size` bytes."""
        return _indexed(Bytes(file_size, front=data[:file_size]))

    @property
    def tensor_count(self) -> int:
        """Number of tensors."""
        return len(self.tensors)

    def key_spans(self) -> list[tuple[str, int, int | None, int, int, int, int]]:
        """Fields of each key, as `ggufext.header.header.KeyValue` has them."""
        return [
            (k.key, k.type, k.element_type, k.count, k.start, k.value_start, k.end)
            for k in self.keys
        ]

    def tensor_spans(self) -> list[tuple[str, tuple[int, ...], str, int, int]]:
        """Fields of each tensor, as `ggufext.header.header.TensorInfo` has them."""
        return [(t.name, t.shape, t.type, t.offset, t.size) for t in self.tensors]

    def kept(self, key_number: int) -> bytes | None:
        """Payload of a key, when it is small."""
        return self.keys[key_number].kept


def _indexed(source: Bytes) -> HeaderIndex:
    try:
        return _Parser(source).parse()
    except MemoryError:
        pass  # what was made so far is let go before the error is made
    raise HeaderError(code="out_of_memory", message="not enough memory to index this header")


class _Parser:
    """One pass over a header; `place` names the entry being read, for errors."""

    def __init__(self, source: Bytes) -> None:
        self.source = source
        self.index = HeaderIndex(source.end)
        self.place = ""

    def parse(self) -> HeaderIndex:
        self.read_magic()
        self.read_version()
        self.place = "tensor count"
        tensor_count = self.number("Q", "the number of tensors")
        self.place = "key count"
        key_count = self.number("Q", "the number of keys")
        # The smallest entries: a tensor with a name of one byte and no dimensions, a key of one
        # byte with a value of one byte. The largest mixtures of experts have some 100,000 tensors
        # when every expert is stored alone.
        self.place = "tensor count"
        self.check_count(tensor_count, "tensors", 8, smallest=8 + 1 + 4 + 4 + 8, limit=2**20)
        self.place = "key count"
        self.check_count(key_count, "keys", 16, smallest=8 + 1 + 4 + 1, limit=2**16)
        self.read_keys(key_count)
        self.find_alignment()
        self.read_tensors(tensor_count)
        self.place_data()
        return self.index

    def error(self, code: str, message: str, offset: int) -> HeaderError:
        return HeaderError(code=code, message=message, field=self.place, offset=offset)

    def check_left(self, size: int, what: str) -> None:
        if size > self.source.remaining:
            raise self.error(
                "truncated",
                f"the file ends inside its header: {what} takes {size:,} bytes and "
                f"{self.source.remaining:,} are left; probably an unfinished download: get it "
                "again",
                self.source.position,
            )

    def take(self, size: int, what: str) -> bytes:
        self.check_left(size, what)
        return self.source.take(size)

    def number(self, format_: str, what: str) -> int:
        stored = _NUMBERS[format_]
        self.check_left(stored.size, what)
        at = self.source.need(stored.size)
        self.source.position += stored.size
        (value,) = stored.unpack_from(self.source.window, at)
        return int(value)

    def read_magic(self) -> None:
        self.place = "magic"
        at = self.source.need(min(4, self.source.remaining))
        start = self.source.window[at : at + _FOREIGN_BYTES]
        magic = start[:4]
        if magic == b"GGUX":
            raise self.error(
                "interrupted_edit",
                "an edit of this file was interrupted: run `ggufext recover` on it, which "
                "finishes the edit or restores the old file",
                0,
            )
        if not magic or not b"GGUF".startswith(magic):
            raise self.error("not_gguf", described(start), 0)
        self.take(4, "the magic")

    def read_version(self) -> None:
        self.place = "version"
        offset = self.source.position
        version = self.index.version = self.number("I", "the version")
        if version in {2, 3}:
            return
        found = f"found GGUF version {version:,}, expected 2 or 3: "
        if version != 0 and version & 0xFFFF == 0:
            found = (
                "found a version number with its bytes swapped (a big-endian file), expected a "
                "little-endian one: get that, or convert it with gguf-py's gguf-convert-endian"
            )
        elif version == 1:
            found += "llama.cpp no longer reads version 1; convert the original model again"
        elif version == 0:
            found += "there is no such version; get the file again"
        else:
            found += "a newer ggufext may read it"
        raise self.error("unsupported_version", found, offset)

    def check_count(self, count: int, what: str, offset: int, *, smallest: int, limit: int) -> None:
        remaining = self.source.remaining
        possible = remaining // smallest
        if count <= possible and count <= limit:
            return
        why = f"expected at most {limit:,}, more than any model has"
        if count > possible:
            why = f"but the {remaining:,} bytes left in the file cannot hold more than {possible:,}"
        raise self.error(
            "count_too_large", f"found a count of {count:,} {what}, {why}: {_DAMAGED}", offset
        )

    def read_keys(self, count: int) -> None:
        for i in range(count):
            self.place = f"key {i + 1} of {count}"
            self.index.keys.append(self.read_entry())
        self.index.keys_end = self.source.position
        seen = set()
        for span in self.index.keys:
            if span.key in seen:
                self.place = shortened(span.key)
                raise self.error(
                    "duplicate_key",
                    "found this key a second time, expected every key once, as llama.cpp does: "
                    + _WRITTEN_WRONG,
                    span.start,
                )
            seen.add(span.key)

    def read_entry(self) -> KeySpan:
        start = self.source.position
        key = self.read_key()
        self.place = shortened(key)
        type_ = self.value_type("the type of a value")
        element_type, count = None, 1
        if type_ == ARRAY:
            element_type, count = self.array_head()
        value_start = self.source.position
        self.skip_values(type_ if element_type is None else element_type, count, start)
        end = self.source.position
        kept = None
        if end - value_start <= _KEPT_BYTES:
            self.source.position = value_start
            kept = self.source.take(end - value_start)
        self.check_keys_size(start)
        return KeySpan(key, type_, element_type, count, start, value_start, end, kept)

    def read_key(self) -> str:
        start = self.source.position
        length = self.number("Q", "the length of a key")
        if length == 0:
            message = f"found a key without a name, expected at least one byte: {_DAMAGED}"
            raise self.error("empty_key", message, start)
        self.check_string_length(length, _KEY_LIMIT, start)
        stored = self.take(length, "a key")
        try:
            key = stored.decode()
        except UnicodeDecodeError:
            code, expected = "key_not_utf8", ", expected UTF-8"
        else:
            if "\0" not in key:
                return key
            code, expected = "key_has_nul", " with a zero byte, expected none"
        raise self.error(
            code, f'found the key "{escaped(stored[:64])}"{expected}: {_DAMAGED}', start
        )

    def check_keys_size(self, start: int) -> None:
        """Refuse keys that lie too far behind the start of the file, as soon as one does."""
        if self.source.position > _KEYS_LIMIT:
            raise self.error(
                "header_too_large",
                f"found keys that take more than {_KEYS_LIMIT:,} bytes, expected fewer, more than "
                f"any model has: {_DAMAGED}",
                start,
            )

    def check_string_length(self, length: int, limit: int, offset: int) -> None:
        """Refuse a length that was read at `offset`, just before the position."""
        found = f"found a string of {length:,} bytes"
        if length >= limit:
            message = f"{found}, expected fewer than {limit:,}: {_DAMAGED}"
            raise self.error("string_too_long", message, offset)
        if length > self.source.remaining:
            left = f"only {self.source.remaining:,} are left in the file"
            raise self.error("string_too_long", f"{found}, but {left}: {_DAMAGED}", offset)

    def value_type(self, what: str) -> int:
        offset = self.source.position
        number = self.number("i", what)
        if not 0 <= number < len(VALUE_TYPES):
            raise self.error(
                "bad_value_type",
                f"found value type {number}, expected 0 to 12: {_DAMAGED}",
                offset,
            )
        return number

    def array_head(self) -> tuple[int, int]:
        offset = self.source.position
        element_type = self.value_type("the type of an array's elements")
        if element_type == ARRAY:
            raise self.error(
                "nested_array",
                "found an array of arrays, expected an array of numbers or strings, as llama.cpp "
                "does: remove the key with the program that wrote it",
                offset,
            )
        offset = self.source.position
        count = self.number("Q", "the length of an array")
        found = f"found an array of {count:,}"
        if count >= _ARRAY_LIMIT:
            message = f"{found} elements, expected fewer than {_ARRAY_LIMIT:,}: {_DAMAGED}"
            raise self.error("array_too_long", message, offset)
        if count * smallest(element_type) > self.source.remaining:
            elements = f"{VALUE_TYPES[element_type][0]} elements"
            left = f"only {self.source.remaining:,} bytes are left in the file"
            raise self.error(
                "array_too_long", f"{found} {elements}, but {left}: {_DAMAGED}", offset
            )
        return element_type, count

    def skip_values(self, type_: int, count: int, start: int) -> None:
        if type_ == STRING:
            self.skip_strings(count, start)
            return
        size = smallest(type_) * count
        self.check_left(size, "a value")
        self.source.position += size

    def skip_strings(self, count: int, start: int) -> None:
        """Walk strings; vocabularies have hundreds of thousands, so the inner loop is bare."""
        source, unpack = self.source, _NUMBERS["Q"].unpack_from
        while count:
            self.check_keys_size(start)
            self.check_left(8, "the length of a string")
            at = first = source.need(8)
            window = source.window
            last = min(len(window), first + WINDOW) - 8
            length = 0
            while count and at <= last:
                (length,) = unpack(window, at)
                at += 8 + length
                count -= 1
            # Only a string that leaves the window can be too long.
            source.position += at - length - first
            offset = source.position - 8
            self.check_string_length(length, _STRING_LIMIT, offset)
            source.position += length

    def find_alignment(self) -> None:
        for span in self.index.keys:
            if span.key == "general.alignment":
                break
        else:
            return
        self.place = span.key
        if span.type != UINT32:
            raise self.error(
                "bad_alignment",
                f"found an alignment of type {VALUE_TYPES[span.type][0]}, expected UINT32: "
                + _DAMAGED,
                span.value_start,
            )
        alignment = int.from_bytes(span.kept or b"", "little")
        if alignment not in {2**power for power in range(_ALIGNMENT_LIMIT.bit_length())}:
            raise self.error(
                "bad_alignment",
                f"found an alignment of {alignment:,} bytes, expected a power of two up to "
                f"{_ALIGNMENT_LIMIT:,}: {_DAMAGED}",
                span.value_start,
            )
        self.index.alignment = alignment

    def read_tensors(self, count: int) -> None:
        for i in range(count):
            self.place = f"tensor {i + 1} of {count}"
            self.index.tensors.append(self.read_tensor())
        self.index.infos_end = self.source.position
        seen = set()
        for span in self.index.tensors:
            if span.name in seen:
                self.place = span.name
                raise self.error(
                    "duplicate_tensor",
                    "found a second tensor of this name, expected every name once, as llama.cpp "
                    f"does: {_WRITTEN_WRONG}",
                    span.start,
                )
            seen.add(span.name)

    def read_tensor(self) -> TensorSpan:
        start = self.source.position
        name = self.place = self.tensor_name()
        shape = self.tensor_shape()
        type_name, size = self.tensor_type(shape)
        offset_position = self.source.position
        offset = self.number("Q", "the offset of a tensor")
        return TensorSpan(start, offset_position, name, shape, type_name, offset, size)

    def tensor_name(self) -> str:
        start = self.source.position
        length = self.number("Q", "the length of a tensor's name")
        if not 0 < length < _NAME_LIMIT:
            raise self.error(
                "tensor_name",
                f"found a tensor's name of {length:,} bytes, expected 1 to 63: {_DAMAGED}",
                start,
            )
        stored = self.take(length, "a tensor's name")
        if 0 in stored:
            raise self.error(
                "tensor_name",
                f'found the tensor name "{escaped(stored)}" with a zero byte, expected none: '
                + _DAMAGED,
                start,
            )
        return stored.decode(errors="surrogateescape")

    def tensor_shape(self) -> tuple[int, ...]:
        start = self.source.position
        dimensions = self.number("I", "the number of a tensor's dimensions")
        if dimensions > 4:
            raise self.error(
                "tensor_shape",
                f"found {dimensions:,} dimensions, expected at most 4: {_DAMAGED}",
                start,
            )
        shape: list[int] = []
        elements = 1
        for _ in range(dimensions):
            offset = self.source.position
            size = self.number("q", "a tensor's dimension")
            if size <= 0:
                raise self.error(
                    "tensor_shape",
                    f"found a dimension of {size} elements, expected at least 1: {_DAMAGED}",
                    offset,
                )
            elements *= size
            if elements >= 2**63:
                raise self.error(
                    "tensor_shape",
                    f"found a shape of more elements than a 64-bit number can count: {_DAMAGED}",
                    start,
                )
            shape.append(size)
        return tuple(shape)

    def tensor_type(self, shape: tuple[int, ...]) -> tuple[str, int]:
        """Name of the type, and the tensor's size in bytes."""
        start = self.source.position
        number = self.number("i", "the type of a tensor")
        if not 0 <= number < len(GGML_TYPES):
            raise self.error(
                "tensor_type",
                f"found tensor type {number}, expected 0 to {len(GGML_TYPES) - 1}: the file is "
                "damaged, or was made for a newer llama.cpp than this ggufext knows",
                start,
            )
        name, block_size, block_bytes = GGML_TYPES[number]
        if block_size == 0:
            raise self.error(
                "tensor_type",
                f"found tensor type {number} ({name}), which llama.cpp no longer reads, expected a "
                "current type: get a newer version of the file, or quantize the model again",
                start,
            )
        row, *rest = shape or (1,)
        if row % block_size:
            raise self.error(
                "tensor_shape",
                f"found rows of {row:,} elements, expected a multiple of the {block_size} in a "
                f"block of type {name}: {_DAMAGED}",
                start,
            )
        size = row // block_size * block_bytes
        for dimension in rest:
            size *= dimension
        if size >= 2**64:
            raise self.error(
                "tensor_shape",
                f"found a tensor of more bytes than a 64-bit number can count: {_DAMAGED}",
                start,
            )
        return name, size

    def place_data(self) -> None:
        """Place the data: llama.cpp wants each tensor right behind the padded one before it."""
        index = self.index
        index.data_offset = index.data_end = index.infos_end
        if not index.tensors:
            return
        index.data_offset = _padded(index.infos_end, index.alignment)
        expected = 0
        for span in index.tensors:
            if span.offset != expected:
                self.place = span.name
                raise self.error(
                    "tensor_offset",
                    f"found its data at offset {span.offset:,}, expected {expected:,}, right "
                    f"behind the tensor before it: {_WRITTEN_WRONG}",
                    span.offset_position,
                )
            if span.size > _ABSURD_SIZE or expected > _ABSURD_SIZE:
                raise self.past_end(span, _ABSURD_SIZE)
            expected = _padded(span.offset + span.size, index.alignment)
        last = index.tensors[-1]
        index.data_end = index.data_offset + last.offset + last.size
        for span in index.tensors:
            if index.data_offset + span.offset + span.size > index.file_size:
                raise self.past_end(span, index.data_end)

    def past_end(self, span: TensorSpan, needed: int) -> HeaderError:
        self.place = span.name
        return self.error(
            "data_past_end",
            f"the tensors take {needed:,} bytes of file or more, but it has "
            f"{self.index.file_size:,}: probably an unfinished download: get it again",
            self.index.data_offset + span.offset,
        )


def _padded(size: int, alignment: int) -> int:
    return size + -size % alignment


def shortened(key: str) -> str:
    """A key as errors name it: at most 200 bytes, cut between characters."""
    stored = key.encode()
    if len(stored) <= 200:
        return key
    return stored[:200].decode(errors="ignore") + "…"
