"""The native reader and its specification in plain Python say the same, word for word."""

from __future__ import annotations

import dataclasses
import os
import struct
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gguf_bytes import (
    BOOL,
    FLOAT32,
    FLOAT64,
    FORMATS,
    INT8,
    INT16,
    INT32,
    INT64,
    STRING,
    TENSOR_TYPES,
    U32,
    UINT8,
    UINT16,
    UINT32,
    UINT64,
    Array,
    Raw,
    Tensor,
    gguf_bytes,
    string_bytes,
)
from ggufext.errors import HeaderError
from ggufext.header import header
from ggufext.header.header import Header, parse_header, read_header_from
from header.readers import READERS
from header.test_refusals import EVERYTHING, Bad

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: A first draw of text takes two seconds, whatever is tested.
PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

#: Bytes of the window through which a descriptor is read.
WINDOW = 2**16


def said(read: Callable[[], Header], reader: str) -> tuple[object, ...]:
    """All that a reader finds in a header, or all that it says of one that it refuses."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(header, "reader", READERS[reader])
        try:
            found = read()
        except HeaderError as error:
            # That advice names the file, where it has a name.
            message = None if error.code == "interrupted_edit" else error.message
            return error.code, error.field, error.offset, message
        keys = [
            (*dataclasses.astuple(entry), repr(found.value(entry.key)))
            for entry in found.keys.values()
        ]
    places = (found.keys_end, found.infos_end, found.data_offset, found.data_end)
    tensors = [dataclasses.astuple(tensor) for tensor in found.tensors]
    return found.version, found.alignment, places, keys, tensors


def said_of_memory(data: bytes, file_size: int, reader: str = "native") -> tuple[object, ...]:
    return said(lambda: parse_header(data, file_size=file_size), reader)


def said_of_file(data: bytes, reader: str = "native") -> tuple[object, ...]:
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        return said(lambda: read_header_from(file.fileno(), path=Path(file.name)), reader)


def specified(data: bytes) -> tuple[object, ...]:
    """What the specification says of a file, which is the same of its bytes."""
    expected = said_of_memory(data, len(data), "pure")
    assert said_of_file(data, "pure") == expected
    return expected


INTEGERS = {
    UINT8: (0, 2**8),
    INT8: (-(2**7), 2**7),
    UINT16: (0, 2**16),
    INT16: (-(2**15), 2**15),
    UINT32: (0, 2**32),
    INT32: (-(2**31), 2**31),
    UINT64: (0, 2**64),
    INT64: (-(2**63), 2**63),
}


def elements(type_: int) -> st.SearchStrategy[object]:
    """Stored values of one type; floats and strings of any bit pattern."""
    if type_ in INTEGERS:
        low, end = INTEGERS[type_]
        return st.integers(low, end - 1)
    if type_ == STRING:
        return st.text(max_size=80) | st.binary(max_size=80)
    size = struct.calcsize(FORMATS[type_])
    return st.binary(min_size=size, max_size=size).map(lambda payload: Raw(type_, payload))


TYPES = st.sampled_from([*INTEGERS, FLOAT32, FLOAT64, BOOL, STRING])


def scalar(type_: int) -> st.SearchStrategy[Raw]:
    def stored(value: object) -> Raw:
        if isinstance(value, Raw):
            return value
        if isinstance(value, str | bytes):
            return Raw(STRING, string_bytes(value))
        return Raw(type_, struct.pack(FORMATS[type_], value))

    return elements(type_).map(stored)


SCALARS = TYPES.flatmap(scalar)
ARRAYS = TYPES.flatmap(
    lambda type_: st.lists(elements(type_), max_size=30).map(lambda values: Array(type_, values))
)
KEYS = st.text(
    st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=90
).filter(lambda key: key != "general.alignment")
METADATA = st.dictionaries(KEYS, SCALARS | ARRAYS, max_size=8)


@st.composite
def tensor_lists(draw: st.DrawFn) -> list[Tensor]:
    names = draw(
        st.lists(
            st.text("abc.ä_0", min_size=1, max_size=63).filter(lambda n: len(n.encode()) < 64),
            unique=True,
            max_size=5,
        )
    )
    tensors = []
    for name in names:
        type_ = draw(st.sampled_from(sorted(TENSOR_TYPES)))
        rest = draw(st.lists(st.integers(1, 3), max_size=3))
        row = TENSOR_TYPES[type_][1] * draw(st.integers(1, 3))
        tensors.append(Tensor(name, draw(st.sampled_from([(row, *rest), (row,)])), type_))
    return tensors


@st.composite
def files(draw: st.DrawFn) -> bytes:
    return gguf_bytes(
        draw(METADATA),
        draw(tensor_lists()),
        version=draw(st.sampled_from([2, 3])),
        alignment=draw(st.sampled_from([1, 8, 32, 64, 4096])),
        pad_last=draw(st.booleans()),
    )


@st.composite
def broken_files(draw: st.DrawFn) -> bytes:
    """A valid file with a few bytes changed, put in, taken out or cut off."""
    data = bytearray(draw(files()))
    interesting = [0, 1, 2, 3, 4, 8, 9, 13, 63, 64, 2**16, 2**20, 2**30, 2**31, 2**62, 2**63 - 1]
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        match draw(st.sampled_from(["byte", "number", "insert", "remove", "cut", "repeat"])):
            case "byte":
                data[at : at + 1] = draw(st.binary(min_size=1, max_size=1))
            case "number":
                number = (
                    draw(st.sampled_from(interesting)) * draw(st.sampled_from([1, -1]))
                ) % 2**64
                size = draw(st.sampled_from([4, 8]))
                data[at : at + size] = number.to_bytes(8, "little")[:size]
            case "insert":
                data[at:at] = draw(st.binary(max_size=9))
            case "remove":
                del data[at : at + draw(st.integers(1, 9))]
            case "cut":
                del data[at:]
            case "repeat":
                data[at:at] = data[at : at + draw(st.integers(1, 40))]
    return bytes(data)


@PATIENT
@given(files())
def test_a_valid_file_is_read_as_the_specification_says(data: bytes) -> None:
    expected = specified(data)
    assert len(expected) == 5  # it was not refused
    assert said_of_file(data) == expected
    assert said_of_memory(data, len(data)) == expected


@settings(PATIENT, max_examples=600)
@given(broken_files())
def test_a_broken_file_is_refused_as_the_specification_says(data: bytes) -> None:
    expected = specified(data)
    assert said_of_file(data) == expected
    assert said_of_memory(data, len(data)) == expected


@PATIENT
@given(files(), st.integers(0, 2**64 - 1))
def test_a_header_in_memory_is_judged_by_the_size_that_the_file_will_have(
    data: bytes, file_size: int
) -> None:
    assert said_of_memory(data, file_size) == said_of_memory(data, file_size, "pure")


@pytest.mark.parametrize("bad", EVERYTHING, ids=lambda bad: f"{bad.code}: {bad.name}")
def test_every_refusal_has_the_same_words(bad: Bad) -> None:
    assert said_of_memory(bad.data, len(bad.data)) == specified(bad.data)


def test_real_headers_are_read_alike(real_headers: Path) -> None:
    for path in sorted(real_headers.glob("*.gguf")):
        data = path.read_bytes()
        assert said_of_file(data) == specified(data)


SMALL = gguf_bytes(
    {
        "general.architecture": "llama",
        "llama.context_length": U32(4096),
        "tokenizer.ggml.tokens": ["a", "bc", ""],
        "tokenizer.ggml.scores": [1.0, -2.5],
        "general.flag": True,
    },
    [Tensor("token_embd.weight", (32, 2), "Q8_0"), Tensor("norm", (5,))],
    pad_last=False,
)


def test_a_file_cut_at_any_byte_is_refused() -> None:
    header_end = parse_header(SMALL, file_size=len(SMALL)).infos_end
    for size in range(len(SMALL)):
        verdict = said_of_file(SMALL[:size])
        assert verdict == specified(SMALL[:size])
        if size == 0:
            assert verdict[0] == "not_gguf"
        elif size >= header_end:
            assert verdict[0] == "data_past_end"
        else:
            cut = {"truncated", "count_too_large", "string_too_long", "array_too_long"}
            assert verdict[0] in cut


def test_a_file_with_any_byte_changed_is_judged_as_the_specification_says() -> None:
    for at in range(len(SMALL)):
        for change in (0x01, 0x80, 0xFF):
            data = bytearray(SMALL)
            data[at] ^= change
            assert said_of_memory(bytes(data), len(data)) == specified(bytes(data))


def files_around_the_window() -> Iterator[bytes]:
    """Headers in which something lies across the border of the first window."""
    filler = WINDOW - len(gguf_bytes({"filler": ""}))
    for shift in range(-120, 4):
        yield gguf_bytes(
            {
                "filler": "x" * (filler + shift),
                "tokens": ["Ġ", "abc", "", "ü" * 20],
                "name": "text",
                "long": ["a", "b" * 5000, "c"],
            },
            [Tensor("t", (8,))],
        )


def test_entries_across_the_border_of_the_window_are_read_whole() -> None:
    for data in files_around_the_window():
        assert said_of_file(data) == said_of_memory(data, len(data)) == specified(data)


def test_many_windows_of_strings_are_read_whole() -> None:
    tokens = [f"token {i} " + "é" * (i % 7) for i in range(60_000)]
    data = gguf_bytes({"tokens": tokens, "long": "x" * 3 * WINDOW, "n": 1})
    assert said_of_file(data) == specified(data)


def test_a_descriptor_is_neither_moved_nor_closed() -> None:
    with tempfile.TemporaryFile() as file:
        file.write(SMALL)
        file.flush()
        os.lseek(file.fileno(), 7, os.SEEK_SET)
        free_before = os.dup(0)
        os.close(free_before)
        read_header_from(file.fileno())
        assert os.lseek(file.fileno(), 0, os.SEEK_CUR) == 7
        free_after = os.dup(0)
        os.close(free_after)
        assert free_after == free_before
