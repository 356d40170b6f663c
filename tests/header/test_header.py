"""What a Header says about a good file."""

from __future__ import annotations

import dataclasses
import math
import os
import struct
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from gguf_bytes import (
    BOOL,
    F32,
    F64,
    I8,
    I16,
    I32,
    I64,
    STRING,
    U8,
    U16,
    U32,
    U64,
    UINT32,
    Array,
    Raw,
    Tensor,
    gguf_bytes,
    header_bytes,
    string_bytes,
)
from ggufext.errors import HeaderError
from ggufext.header.header import (
    Header,
    KeyValue,
    TensorInfo,
    ValueType,
    parse_header,
    read_header,
    read_header_from,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

pytestmark = pytest.mark.usefixtures("reader")

#: A value larger than what a Header keeps.
LARGE = [f"token {i}" for i in range(1000)]


def parsed(data: bytes) -> Header:
    return parse_header(data, file_size=len(data))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A small model whose vocabulary must be read from the file again."""
    path = tmp_path / "model.gguf"
    keys = {"general.architecture": "llama", "tokens": LARGE, "llama.context_length": U32(4096)}
    path.write_bytes(gguf_bytes(keys, [Tensor("t", (8,))]))
    return path


def test_places_of_everything_are_known() -> None:
    data = gguf_bytes({"a": U32(7), "b": ["x", "yz"]}, [Tensor("t", (8, 2)), Tensor("u", (3,))])
    header = parsed(data)

    assert (header.version, header.alignment, header.file_size) == (3, 32, len(data))
    assert (header.key_count, header.tensor_count, header.path) == (2, 2, None)
    assert list(header.keys.values()) == [
        KeyValue("a", ValueType.UINT32, None, 1, start=24, value_start=37, end=41),
        KeyValue("b", ValueType.ARRAY, ValueType.STRING, 2, start=41, value_start=66, end=85),
    ]
    assert header.keys_end == 85
    assert header.infos_end == 85 + 41 + 33
    assert header.data_offset == 160
    assert header.data_end == 160 + 64 + 12
    assert header.tensors == (
        TensorInfo("t", (8, 2), "F32", offset=0, size=64),
        TensorInfo("u", (3,), "F32", offset=64, size=12),
    )


def test_a_file_without_tensors_ends_with_its_header() -> None:
    header = parsed(gguf_bytes({"a": U8(1)}))
    assert header.infos_end == header.data_offset == header.data_end == 38


def test_the_data_starts_at_the_alignment_that_the_file_names() -> None:
    header = parsed(gguf_bytes({}, [Tensor("t", (8,))], alignment=4096))
    assert (header.alignment, header.data_offset, header.data_end) == (4096, 4096, 4128)


def test_a_front_is_a_header_or_too_short_and_nothing_else() -> None:
    tensors = [Tensor("a", (32, 2), "Q8_0"), Tensor("b", (4,))]
    data = gguf_bytes({"n": 1, "words": ["one", "two"], "numbers": [1, 2, 3], "s": "text"}, tensors)
    whole = parse_header(data, file_size=len(data))
    for size in range(len(data)):
        if size >= whole.infos_end:
            assert parse_header(data[:size], file_size=len(data)).tensors == whole.tensors
        else:
            with pytest.raises(HeaderError) as caught:
                parse_header(data[:size], file_size=len(data))
            assert caught.value.code == "front_too_short"


def test_bytes_behind_the_data_are_no_error() -> None:
    data = gguf_bytes({}, [Tensor("t", (8,))])
    assert parse_header(data, file_size=len(data) + 1000).data_end == len(data)


def test_a_tensor_without_dimensions_has_one_element() -> None:
    (tensor,) = parsed(gguf_bytes({}, [Tensor("t", ())])).tensors
    assert (tensor.shape, tensor.size) == ((), 4)


def test_sizes_beyond_32_bits_are_exact(tmp_path: Path) -> None:
    path = tmp_path / "large.gguf"
    tensors = [Tensor("t", (2**20, 2**12)), Tensor("u", (2**20, 2**12))]
    path.write_bytes(header_bytes({}, tensors))
    os.truncate(path, 2**36)
    header = read_header(path)
    assert header.tensors[1].offset == 2**34
    assert header.data_end == header.data_offset + 2**35


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="needs Linux's count of bytes read")
def test_tensor_data_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(gguf_bytes({}, [Tensor("t", (2**21,))]))

    def bytes_read() -> int:
        return int(Path("/proc/self/io").read_text().split()[1])

    before = bytes_read()
    read_header(path)
    assert bytes_read() - before < 2**17


@pytest.mark.parametrize(
    ("stored", "value"),
    [
        (U8(255), 255),
        (I8(-128), -128),
        (U16(65535), 65535),
        (I16(-32768), -32768),
        (U32(2**32 - 1), 2**32 - 1),
        (I32(-(2**31)), -(2**31)),
        (U64(2**64 - 1), 2**64 - 1),
        (I64(-(2**63)), -(2**63)),
        (F32(0.1), struct.unpack("<f", struct.pack("<f", 0.1))[0]),
        (F64(0.1), 0.1),
        (F32(math.inf), math.inf),
        (Raw(BOOL, b"\0"), False),
        (Raw(BOOL, b"\2"), True),
        (Raw(BOOL, b"\xff"), True),
        ("", ""),
        ("x", "x"),
        ("grüße, 世界 🌍", "grüße, 世界 🌍"),
        ("a\0b", "a\0b"),
        (Array(UINT32, []), ()),
        (Array(STRING, []), ()),
        (Array(BOOL, [True, False]), (True, False)),
        (Array(STRING, ["", "a", "Ġthe", "é", "🌍"]), ("", "a", "Ġthe", "é", "🌍")),
    ],
)
def test_values_come_back_as_python_values(stored: object, value: object) -> None:
    found = parsed(header_bytes({"k": stored})).value("k")
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    "stored",
    [
        b"\xff",
        b"a\xc3",
        b"\xed\xa0\x80abc",
        b"\xc0\xaf",
        b"\xe0\x80\xafxyz",
        b"\xf4\x90\x80\x80",
        b"\xc3(",
    ],
)
def test_strings_that_are_no_utf8_come_back_byte_for_byte(stored: bytes) -> None:
    header = parsed(header_bytes({"k": Raw(STRING, string_bytes(stored))}))
    text = header.value("k")
    assert isinstance(text, str)
    assert text.encode("utf-8", "surrogateescape") == stored


def test_keys_keep_the_order_of_the_file() -> None:
    names = [f"key.{i * 7919 % 100}" for i in range(100)]
    assert list(parsed(header_bytes(dict.fromkeys(names, 1))).keys) == names


def test_a_header_cannot_be_changed() -> None:
    header = parsed(gguf_bytes({"a": 1}))
    with pytest.raises(dataclasses.FrozenInstanceError):
        header.version = 2  # type: ignore[misc]
    with pytest.raises(TypeError):
        header.keys["b"] = header.keys["a"]  # type: ignore[index]


def test_a_key_that_is_absent_has_no_value() -> None:
    header = parsed(gguf_bytes())
    with pytest.raises(KeyError):
        header.value("a")
    assert header.integer("a") is None
    assert header.number("a") is None
    assert header.boolean("a") is None
    assert header.string("a") is None
    assert header.array("a", ValueType.INT32) is None


def test_typed_access_gives_values_of_that_type() -> None:
    header = parsed(
        header_bytes(
            {
                "n": U32(7),
                "split.count": U16(3),
                "f": F32(0.5),
                "b": True,
                "s": "text",
                "a": Array(UINT32, [1, 2]),
            }
        )
    )
    assert header.integer("n") == 7
    assert header.integer("split.count", value_type=ValueType.UINT16) == 3
    assert header.number("f") == 0.5
    assert header.boolean("b") is True
    assert header.string("s") == "text"
    assert header.array("a", ValueType.INT32, ValueType.UINT32) == (1, 2)


@pytest.mark.parametrize(
    ("stored", "method", "types"),
    [
        ("4096", "integer", "found type STRING, expected UINT32"),
        (I32(4096), "integer", "found type INT32, expected UINT32"),
        (Array(UINT32, [4096]), "integer", "found type ARRAY of UINT32, expected UINT32"),
        (U32(10000), "number", "found type UINT32, expected FLOAT32"),
        (F64(10000.0), "number", "found type FLOAT64, expected FLOAT32"),
        (U8(1), "boolean", "found type UINT8, expected BOOL"),
        (U8(1), "string", "found type UINT8, expected STRING"),
    ],
)
def test_another_type_than_llama_cpp_wants_is_refused(
    stored: object, method: str, types: str
) -> None:
    header = parsed(header_bytes({"k": stored}))
    with pytest.raises(HeaderError, match=types) as caught:
        getattr(header, method)("k")
    error = caught.value
    assert (error.code, error.field, error.offset) == ("wrong_type", "k", 24)


@pytest.mark.parametrize(
    ("stored", "found"), [(U32(1), "UINT32"), (Array(STRING, ["a"]), "ARRAY of STRING")]
)
def test_an_array_of_other_elements_is_refused(stored: object, found: str) -> None:
    header = parsed(header_bytes({"k": stored}))
    message = f"found type {found}, expected ARRAY of INT32 or ARRAY of UINT32"
    with pytest.raises(HeaderError, match=message) as caught:
        header.array("k", ValueType.INT32, ValueType.UINT32)
    assert caught.value.code == "wrong_type"


def test_large_values_are_read_from_the_file_when_asked_for(model: Path) -> None:
    assert read_header(model).value("tokens") == tuple(LARGE)


def test_large_values_of_a_header_in_memory_come_from_its_bytes(model: Path) -> None:
    assert parsed(model.read_bytes()).value("tokens") == tuple(LARGE)


def test_small_values_outlive_the_file(model: Path) -> None:
    header = read_header(model)
    model.unlink()
    assert header.integer("llama.context_length") == 4096


def replaced(model: Path) -> None:
    copy = model.with_name("copy")
    copy.write_bytes(model.read_bytes())
    copy.rename(model)


def touched(model: Path) -> None:
    os.utime(model, ns=(0, 0))


def grown(model: Path) -> None:
    status = model.stat()
    os.truncate(model, status.st_size + 1)
    os.utime(model, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize("change", [replaced, touched, grown], ids=lambda change: change.__name__)
def test_a_large_value_is_refused_when_the_file_is_not_the_same(
    model: Path, change: Callable[[Path], None]
) -> None:
    header = read_header(model)
    change(model)
    with pytest.raises(HeaderError) as caught:
        header.value("tokens")
    error = caught.value
    assert (error.code, error.path, error.field) == ("changed_meanwhile", model, "tokens")


def test_a_large_value_is_refused_when_the_same_looking_file_holds_another(model: Path) -> None:
    header = read_header(model)
    status = model.stat()
    with model.open("r+b") as file:
        file.seek(header.keys["tokens"].value_start)
        file.write(struct.pack("<Q", 2**40))
    os.utime(model, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(HeaderError) as caught:
        header.value("tokens")
    assert (caught.value.code, caught.value.field) == ("changed_meanwhile", "tokens")


@pytest.mark.parametrize(
    ("flags", "offset_from_end", "code", "says"),
    [
        (os.O_RDONLY, 0, "changed_meanwhile", "became shorter while it was read"),
        (os.O_WRONLY, -4, "unreadable", "could not read here: Bad file descriptor"),
    ],
    ids=["the file ends", "the system refuses"],
)
def test_a_value_that_cannot_be_read_whole_is_refused(
    model: Path, reader: ModuleType, flags: int, offset_from_end: int, code: str, says: str
) -> None:
    size = model.stat().st_size
    fd = os.open(model, flags)
    with pytest.raises(HeaderError, match=says) as caught:
        reader.read_value(
            fd, start=size - 4, end=size + 100, value_type=9, element_type=0, count=104
        )
    os.close(fd)
    assert (caught.value.code, caught.value.offset) == (code, size + offset_from_end)


def test_a_large_value_is_refused_when_the_file_is_gone(model: Path) -> None:
    header = read_header(model)
    model.unlink()
    with pytest.raises(HeaderError) as caught:
        header.value("tokens")
    assert (caught.value.code, caught.value.field) == ("unreadable", "tokens")


def test_a_large_value_behind_a_nameless_descriptor_asks_for_a_path(model: Path) -> None:
    with model.open("rb") as file:
        header = read_header_from(file.fileno())
    with pytest.raises(HeaderError, match="with its path") as caught:
        header.value("tokens")
    assert caught.value.code == "no_path"


def test_a_descriptor_with_a_path_reads_large_values_after_it_is_closed(model: Path) -> None:
    with model.open("rb") as file:
        header = read_header_from(file.fileno(), path=model)
    assert header.value("tokens") == tuple(LARGE)
