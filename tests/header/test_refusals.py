"""Every way in which a header can be bad has a code of its own, a place, and advice."""

from __future__ import annotations

import hashlib
import os
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from gguf_bytes import (
    ARRAY,
    STRING,
    U16,
    U32,
    UINT32,
    Array,
    Raw,
    Tensor,
    gguf_bytes,
    header_bytes,
    key_bytes,
    string_bytes,
)
from ggufext.errors import HeaderError
from ggufext.header.header import JOURNAL_SUFFIX, POISONED_MAGIC, parse_header, read_header

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("reader")

#: Start of the first key.
KEYS = 24

VALID = gguf_bytes({"a": U32(1)}, [Tensor("t", (8,))])


@dataclass(frozen=True)
class Bad:
    """A file, and what must be said about it."""

    name: str
    data: bytes
    code: str
    field: str
    offset: int
    says: str = ""


def with_version(version: int) -> bytes:
    return VALID[:4] + struct.pack("<I", version) + VALID[8:]


def with_key(key: str | bytes) -> bytes:
    return header_bytes([(key, U32(1))])


def with_value(value: object) -> bytes:
    return header_bytes([("k", value)])


def with_alignment(value: object) -> bytes:
    return header_bytes({"general.alignment": value})


def with_tensor(tensor: Tensor) -> bytes:
    return header_bytes(tensors=[tensor]) + bytes(64)


#: Behind the type of a value whose key is "k"; behind an array's element type.
VALUE = KEYS + 8 + 1 + 4
COUNT = VALUE + 4
#: Start of the value of general.alignment.
ALIGNMENT = KEYS + 8 + 17 + 4
#: Start of the shape of a tensor named "t"; its first dimension.
SHAPE = KEYS + 8 + 1
DIMENSION = SHAPE + 4

TRUNCATED = [
    Bad("in the magic", b"GG", "truncated", "magic", 0),
    Bad("in the version", VALID[:6], "truncated", "version", 4),
    Bad("in the tensor count", VALID[:12], "truncated", "tensor count", 8),
    Bad("in the key count", VALID[:20], "truncated", "key count", 16),
    Bad("in a value", with_value(U32(1))[:-1], "truncated", "k", VALUE, "4 bytes and 3 are left"),
    Bad("in an array's element type", with_value(Raw(ARRAY, b"\4\0")), "truncated", "k", VALUE),
    Bad(
        "in a string of an array",
        with_value(Array(STRING, ["a", "b"]))[:-9] + b"1234567",
        "truncated",
        "k",
        COUNT + 8 + 9,
    ),
    Bad("in a tensor's name", VALID[:49], "truncated", "tensor 1 of 1", 49),
    Bad("in a tensor's offset", with_tensor(Tensor("t", (8,)))[:-70], "truncated", "t", 49),
]

FOREIGN = [
    ("an empty file", b""),
    ("Git LFS", b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 42\n"),
    ("git-annex", b"/annex/objects/SHA256E-s42--0123.gguf\n"),
    ("HTML", b"\n<!DOCTYPE html><html><head><title>401</title>"),
    ("HTML", b"<html>not found</html>"),
    ("XML", b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>"),
    ("safetensors", struct.pack("<Q", 40) + b'{"__metadata__":{}}'),
    ("safetensors", struct.pack("<Q", ord("{")) + b'{"__metadata__":{}}'),
    ("JSON", b'[{"sha256": 1}]'),
    ("zip", b"PK\x03\x04\x14\x00"),
    ("llamafile", b"MZqFpD='\n"),
    ("llamafile", b"\x7fELF\x02\x01\x01"),
    ("gzip", b"\x1f\x8b\x08\x00"),
    ("zstd", b"\x28\xb5\x2f\xfd\x00"),
    ("ggml format", b"lmgg\x01\x00"),
    ("ggjt format", b"tjgg\x03\x00"),
    ("JSON", b'{"error": "Repository not found"}'),
    ("pickle", b"\x80\x02}q\x00"),
    ("tar", b"model/".ljust(257, b"\0") + b"ustar\x00" + bytes(249)),
    ("zero bytes", bytes(600)),
    (r'starting with "\x1b[31"', b"\x1b[31mred"),
]

NOT_GGUF = [
    Bad(f"{says} {i}", data, "not_gguf", "magic", 0, says) for i, (says, data) in enumerate(FOREIGN)
]

VERSIONS = [
    Bad(str(version), with_version(version), "unsupported_version", "version", 4, says)
    for version, says in [
        (0, "no such version"),
        (1, "no longer reads"),
        (4, "newer ggufext"),
        (2**31, "big-endian"),
        (0x03000000, "big-endian"),
        (0x02000000, "big-endian"),
    ]
]

LENGTHS = [
    Bad(
        "more keys than the rest can hold",
        gguf_bytes({"a": U32(1)}, key_count=2),
        "count_too_large",
        "key count",
        16,
        "cannot hold more than 1",
    ),
    Bad(
        "more tensors than the rest can hold",
        header_bytes(tensor_count=2**63) + bytes(100),
        "count_too_large",
        "tensor count",
        8,
        "cannot hold more than 4",
    ),
    Bad(
        "more keys than any model has",
        header_bytes(key_count=2**16 + 1) + bytes(14 * 2**16 + 14),
        "count_too_large",
        "key count",
        16,
        "at most 65,536",
    ),
    Bad(
        "more tensors than any model has",
        header_bytes(tensor_count=2**20 + 1) + bytes(25 * 2**20 + 25),
        "count_too_large",
        "tensor count",
        8,
        "at most 1,048,576",
    ),
    Bad(
        "a string longer than the rest",
        with_value(Raw(STRING, string_bytes("abc", length=4))),
        "string_too_long",
        "k",
        VALUE,
        "4 bytes, but only 3",
    ),
    Bad(
        "a string of 2^30 bytes",
        with_value(Raw(STRING, string_bytes("abc", length=2**30))),
        "string_too_long",
        "k",
        VALUE,
        "fewer than 1,073,741,824",
    ),
    Bad(
        "a string whose end overflows",
        with_value(Raw(STRING, string_bytes("abc", length=2**64 - 1))),
        "string_too_long",
        "k",
        VALUE,
    ),
    Bad(
        "a string in an array whose end overflows",
        with_value(Array(STRING, ["a", Raw(STRING, string_bytes("", length=2**64 - 8))])),
        "string_too_long",
        "k",
        COUNT + 8 + 9,
    ),
    Bad(
        "a key longer than the rest",
        header_bytes(key_count=1) + string_bytes("abcdefgh", length=9),
        "string_too_long",
        "key 1 of 1",
        KEYS,
    ),
    Bad(
        "a key of 2^16 bytes",
        with_key("a" * 2**16),
        "string_too_long",
        "key 1 of 1",
        KEYS,
        "fewer than 65,536",
    ),
    Bad(
        "an array longer than the rest",
        with_value(Array(UINT32, [1, 2], count=3)),
        "array_too_long",
        "k",
        COUNT,
        "3 UINT32 elements, but only 8 bytes",
    ),
    Bad(
        "an array of 2^30 elements",
        with_value(Array(UINT32, [1], count=2**30)),
        "array_too_long",
        "k",
        COUNT,
        "fewer than 1,073,741,824",
    ),
    Bad(
        "an array whose size overflows",
        with_value(Array(UINT32, [1], count=2**62 + 1)),
        "array_too_long",
        "k",
        COUNT,
    ),
    Bad(
        "an array of strings longer than the rest",
        with_value(Array(STRING, ["a"], count=2)),
        "array_too_long",
        "k",
        COUNT,
    ),
]

KEY_NAMES = [
    Bad("empty", with_key(""), "empty_key", "key 1 of 1", KEYS),
    Bad("zero byte", with_key("a\0b"), "key_has_nul", "key 1 of 1", KEYS, r"a\x00b"),
    Bad(
        "repeated",
        header_bytes([("a", U32(1)), ("b", U32(1)), ("a", U32(1)), ("b", U32(1))]),
        "duplicate_key",
        "a",
        KEYS + 34,
    ),
    *(
        Bad(f"no UTF-8: {key!r}", with_key(key), "key_not_utf8", "key 1 of 1", KEYS)
        for key in [
            b"\xff",
            b"a\x80",
            b"\xc3",
            b"\xc0\xaf",
            b"\xe0\x80\x80",
            b"\xed\xa0\x80",
            b"\xf0\x80\x80\x80",
            b"\xf4\x90\x80\x80",
        ]
    ),
]

VALUE_TYPES = [
    Bad("type 13", with_value(Raw(13, bytes(8))), "bad_value_type", "k", VALUE - 4, "type 13"),
    Bad("type -1", with_value(Raw(-1, bytes(8))), "bad_value_type", "k", VALUE - 4, "type -1"),
    Bad("elements of type 13", with_value(Array(13, [])), "bad_value_type", "k", VALUE, "type 13"),
    Bad("array of arrays", with_value(Array(ARRAY, [])), "nested_array", "k", VALUE),
]

ALIGNMENTS = [
    Bad(f"{name}", with_alignment(value), "bad_alignment", "general.alignment", ALIGNMENT, says)
    for name, value, says in [
        ("another type", U16(32), "UINT16, expected UINT32"),
        ("a string", "32", "STRING, expected UINT32"),
        ("zero", U32(0), "0 bytes"),
        ("no power of two", U32(48), "48 bytes"),
        ("above 1 MiB", U32(2**21), "2,097,152 bytes"),
    ]
] + [
    Bad(
        "an array",
        with_alignment(Array(UINT32, [32])),
        "bad_alignment",
        "general.alignment",
        ALIGNMENT + 12,
        "ARRAY, expected UINT32",
    )
]

TENSORS = [
    Bad("no name", with_tensor(Tensor("", (8,))), "tensor_name", "tensor 1 of 1", KEYS),
    Bad("64 bytes", with_tensor(Tensor("t" * 64, (8,))), "tensor_name", "tensor 1 of 1", KEYS),
    Bad("zero byte", with_tensor(Tensor("t\0", (8,))), "tensor_name", "tensor 1 of 1", KEYS),
    Bad(
        "repeated",
        gguf_bytes(tensors=[Tensor("t", (8,)), Tensor("u", (8,)), Tensor("t", (8,))]),
        "duplicate_tensor",
        "t",
        KEYS + 66,
    ),
    Bad("5 dimensions", with_tensor(Tensor("t", (1,) * 5)), "tensor_shape", "t", SHAPE),
    Bad("zero elements", with_tensor(Tensor("t", (8, 0))), "tensor_shape", "t", DIMENSION + 8),
    Bad("negative", with_tensor(Tensor("t", (-8, 8))), "tensor_shape", "t", DIMENSION, "-8"),
    Bad("2^63 elements", with_tensor(Tensor("t", (2**32, 2**31))), "tensor_shape", "t", SHAPE),
    Bad("2^64 bytes", with_tensor(Tensor("t", (2**62,))), "tensor_shape", "t", DIMENSION + 8),
    Bad(
        "a row that is no multiple of the block",
        with_tensor(Tensor("t", (48,), "Q8_0")),
        "tensor_shape",
        "t",
        DIMENSION + 8,
        "rows of 48 elements, expected a multiple of the 32 in a block of type Q8_0",
    ),
    Bad("type 43", with_tensor(Tensor("t", (8,), number=43)), "tensor_type", "t", DIMENSION + 8),
    Bad("type -1", with_tensor(Tensor("t", (8,), number=-1)), "tensor_type", "t", DIMENSION + 8),
    *(
        Bad(
            f"removed type {number}",
            with_tensor(Tensor("t", (256,), number=number)),
            "tensor_type",
            "t",
            DIMENSION + 8,
            "no longer reads",
        )
        for number in [4, 5, 31, 32, 33, 36, 37, 38]
    ),
    Bad(
        "a gap before the second",
        gguf_bytes(tensors=[Tensor("t", (8,)), Tensor("u", (8,), offset=64)]),
        "tensor_offset",
        "u",
        KEYS + 33 + 25,
        "offset 64, expected 32",
    ),
    Bad(
        "an overlap",
        gguf_bytes(tensors=[Tensor("t", (8,)), Tensor("u", (8,), offset=0)]),
        "tensor_offset",
        "u",
        KEYS + 33 + 25,
        "offset 0, expected 32",
    ),
    Bad(
        "the first not at the start",
        gguf_bytes(tensors=[Tensor("t", (8,), offset=32)]),
        "tensor_offset",
        "t",
        KEYS + 25,
    ),
]

DATA = [
    Bad(
        "one byte short",
        VALID[:-1],
        "data_past_end",
        "t",
        96,
        "128 bytes of file or more, but it has 127: probably an unfinished download",
    ),
    Bad("cut in the padding before the data", VALID[:83], "data_past_end", "t", 96),
    Bad(
        "the second of two",
        gguf_bytes(tensors=[Tensor("t", (8,)), Tensor("u", (9,))], pad_last=False)[:-1],
        "data_past_end",
        "u",
        128,
    ),
    Bad(
        "sizes whose sum overflows",
        header_bytes(
            tensors=[
                Tensor("t", (2**60,)),
                Tensor("u", (2**60,)),
                Tensor("v", (2**60,)),
                Tensor("w", (1,), offset=3 * 2**62),
            ]
        )
        + bytes(64),
        "data_past_end",
        "v",
        KEYS + 4 * 33 + 4 + 2**63,
    ),
]

EVERYTHING = [
    *TRUNCATED,
    *NOT_GGUF,
    *VERSIONS,
    *LENGTHS,
    *KEY_NAMES,
    *VALUE_TYPES,
    *ALIGNMENTS,
    *TENSORS,
    *DATA,
    Bad(
        "a poisoned magic",
        POISONED_MAGIC + VALID[4:],
        "interrupted_edit",
        "magic",
        0,
        "`ggufext recover ",
    ),
]


@pytest.mark.parametrize("bad", EVERYTHING, ids=lambda bad: f"{bad.code}: {bad.name}")
def test_a_bad_header_is_refused_by_name_and_left_alone(bad: Bad, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(bad.data)
    before = hashlib.sha256(path.read_bytes()).digest()

    with pytest.raises(HeaderError) as caught:
        read_header(path)

    error = caught.value
    assert bad.says in error.message
    assert (error.code, error.field, error.offset) == (bad.code, bad.field, bad.offset)
    assert error.path == path
    assert hashlib.sha256(path.read_bytes()).digest() == before


@pytest.mark.parametrize("bad", EVERYTHING, ids=lambda bad: f"{bad.code}: {bad.name}")
def test_the_same_bytes_in_memory_are_refused_alike(bad: Bad) -> None:
    with pytest.raises(HeaderError) as caught:
        parse_header(bad.data, file_size=len(bad.data))
    error = caught.value
    assert (error.code, error.field, error.offset) == (bad.code, bad.field, bad.offset)


@pytest.mark.parametrize("bad", EVERYTHING, ids=lambda bad: f"{bad.code}: {bad.name}")
def test_the_message_is_one_printable_line_with_advice(bad: Bad) -> None:
    with pytest.raises(HeaderError) as caught:
        parse_header(bad.data, file_size=len(bad.data))
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500
    assert ": " in caught.value.message


def test_a_hostile_key_is_named_shortened_and_escaped() -> None:
    key = "\x1b[2J" + "é" * 300
    with pytest.raises(HeaderError) as caught:
        parse_header(header_bytes([(key, U32(1)), (key, U32(1))]), file_size=10**6)
    assert caught.value.field == key[:102] + "…"
    assert str(caught.value).startswith(r"\x1b[2J")


def test_a_key_repeated_among_many_thousand_is_found() -> None:
    keys = [(f"key.{i % 29_999}", U32(i)) for i in range(30_000)]
    with pytest.raises(HeaderError) as caught:
        parse_header(header_bytes(keys), file_size=10**7)
    assert (caught.value.code, caught.value.field) == ("duplicate_key", "key.0")
    assert caught.value.offset == KEYS + sum(len(key_bytes(*key)) for key in keys[:-1])


def test_a_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(HeaderError, match="a directory") as caught:
        read_header(tmp_path)
    assert caught.value.code == "not_gguf"


def test_a_pipe_is_refused_without_waiting_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(HeaderError, match="a pipe") as caught:
        read_header(tmp_path / "pipe")
    assert caught.value.code == "not_gguf"


def test_a_missing_file_is_unreadable(tmp_path: Path) -> None:
    with pytest.raises(HeaderError, match="No such file") as caught:
        read_header(tmp_path / "none.gguf")
    assert (caught.value.code, caught.value.path) == ("unreadable", tmp_path / "none.gguf")


def test_zero_magic_beside_a_journal_is_an_interrupted_edit(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(bytes(4) + VALID[4:])
    (tmp_path / ("model.gguf" + JOURNAL_SUFFIX)).touch()
    with pytest.raises(HeaderError, match=r"`ggufext recover .*model\.gguf`") as caught:
        read_header(path)
    assert caught.value.code == "interrupted_edit"


def test_another_magic_beside_a_journal_stays_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"PK\x03\x04")
    (tmp_path / ("model.gguf" + JOURNAL_SUFFIX)).touch()
    with pytest.raises(HeaderError) as caught:
        read_header(path)
    assert caught.value.code == "not_gguf"


@pytest.mark.parametrize("suffix", [".part", ".incomplete", ".aria2"])
def test_traces_of_an_unfinished_download_are_named(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(VALID[:-1])
    (tmp_path / ("model.gguf" + suffix)).touch()
    with pytest.raises(HeaderError, match=f"model.gguf{suffix} beside it") as caught:
        read_header(path)
    assert caught.value.code == "data_past_end"
