"""Headers are read, and one header is used, from several threads at once."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

import pytest

from gguf_bytes import STRING, UINT64, Array, Tensor, gguf_bytes
from ggufext import _core
from ggufext.errors import HeaderError
from ggufext.header.header import Header, parse_header, read_header
from threads import COUNT, at_once

if TYPE_CHECKING:
    from pathlib import Path

#: Arrays that are too large to be kept with the header: their values are read from the file.
KEYS = {
    "general.name": "a name ü",
    "tokens": Array(STRING, [f"token {i} é" for i in range(20_000)]),
    "numbers": Array(UINT64, list(range(20_000))),
}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.gguf"
    path.write_bytes(gguf_bytes(KEYS, [Tensor(f"t{i}", (4, 8)) for i in range(50)]))
    return path


def contents(header: Header) -> object:
    return header.tensors, {key: header.value(key) for key in header.keys}


@pytest.mark.usefixtures("reader")
def test_each_thread_reads_the_file_itself(model: Path) -> None:
    expected = contents(read_header(model))
    assert at_once(lambda _: contents(read_header(model))) == [expected] * COUNT


@pytest.mark.usefixtures("reader")
def test_all_threads_use_one_header(model: Path) -> None:
    header, expected = read_header(model), contents(read_header(model))
    assert at_once(lambda _: contents(header)) == [expected] * COUNT


@pytest.mark.usefixtures("reader")
def test_errors_reach_the_thread_that_made_them(model: Path) -> None:
    data = model.read_bytes()

    def work(number: int) -> int | None:
        with pytest.raises(HeaderError) as caught:
            parse_header(data[: 100 + number], file_size=len(data))
        return caught.value.offset

    assert at_once(work) == [100 + number for number in range(COUNT)]


def test_no_other_thread_can_find_an_array_that_is_half_read() -> None:
    payload = (7).to_bytes(8, "little") * 3
    values = _core.decode_value(payload, value_type=9, element_type=10, count=3)
    assert values == (7, 7, 7)
    assert not gc.is_tracked(values)
