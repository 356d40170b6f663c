"""Other readers on single files: real vocabularies, sizes of types, and rules that are ours alone.

`test_differential` compares the readers on thousands of made-up files.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from gguf_bytes import U32, Tensor, gguf_bytes, header_bytes
from ggufext.errors import HeaderError
from ggufext.header.header import Header, ValueType, read_header
from ggufext.llama.library import GgufReader
from header.ggml import judged_by_llama_cpp, load
from llama_here import needs_llama_cpp

if TYPE_CHECKING:
    from types import ModuleType

pytestmark = pytest.mark.usefixtures("reader")

SHARED = Path(os.environ.get("GGUFEXT_SHARED", Path(__file__).parents[2].parent / "shared"))
VOCABULARIES = sorted((SHARED / "data" / "vocab").glob("*.gguf"))
#: gguf-py needs up to 40 seconds for the others.
SMALL_VOCABULARIES = [path for path in VOCABULARIES if path.stat().st_size < 2_000_000]


@pytest.fixture(scope="module")
def library() -> Path:
    """The library of llama.cpp that is used."""
    return needs_llama_cpp().path


# gguf-py.


@pytest.mark.skipif(not VOCABULARIES, reason="no vocabulary files in ../shared/data/vocab")
@pytest.mark.parametrize("path", SMALL_VOCABULARIES, ids=lambda path: path.stem)
def test_real_headers_have_the_values_that_gguf_py_reads(path: Path) -> None:
    from gguf import GGUFReader

    reader = GGUFReader(path)
    header = read_header(path)
    own_fields = {"GGUF.version", "GGUF.tensor_count", "GGUF.kv_count"}
    fields = {name: field for name, field in reader.fields.items() if name not in own_fields}

    assert list(header.keys) == list(fields)
    for name, field in fields.items():
        entry = header.keys[name]
        types = [entry.type] if entry.element_type is None else [entry.type, entry.element_type]
        assert types == [ValueType(int(type_)) for type_ in field.types]
        assert entry.start == field.offset
        assert sampled(header.value(name)) == sampled(contents(field))
    assert header.alignment == reader.alignment
    assert header.tensor_count == len(reader.tensors)


def contents(field: Any) -> object:
    value = field.contents()
    return tuple(value) if isinstance(value, list) else value


def sampled(value: object) -> object:
    """The value; of a long array its ends and length, as gguf-py needs seconds for all."""
    return (value[:3000], value[-3000:], len(value)) if isinstance(value, tuple) else value


def test_tensor_types_have_the_sizes_of_gguf_py(reader: ModuleType) -> None:
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    ours = {number: (block_size, size) for number, _, block_size, size in reader.ggml_types()}
    names = {number: name for number, name, _, _ in reader.ggml_types()}
    for type_, sizes in GGML_QUANT_SIZES.items():
        assert names[int(type_)] == type_.name
        # gguf-py counts two 32-bit scales, where llama.cpp's block has two of 16 bits.
        if type_ is not GGMLQuantizationType.Q8_1:
            assert ours[int(type_)] == sizes


# llama.cpp.


def test_tensor_types_have_the_sizes_of_llama_cpp(reader: ModuleType, library: Path) -> None:
    ggml = load(library)
    block_size = ggml.function("ggml_blck_size", ctypes.c_int64, ctypes.c_int)
    type_size = ggml.function("ggml_type_size", ctypes.c_size_t, ctypes.c_int)
    ours = {number: (block_size, size) for number, _, block_size, size in reader.ggml_types()}
    for number in range(43):
        theirs = (block_size(number), type_size(number))
        assert ours.get(number, (0, 0)) == theirs


#: Files that llama.cpp reads though a rule forbids them, so that we alone refuse them.
STRICTER = {
    "key_has_nul": header_bytes([("a\0b", U32(1))]),
    "key_not_utf8": header_bytes([(b"\xff", U32(1))]),
    "bad_alignment": header_bytes({"general.alignment": U32(2**21)}),
    "tensor_name": header_bytes(tensors=[Tensor("", (8,))]) + bytes(64),
    "tensor_shape": header_bytes(tensors=[Tensor("t", (8, 0))]) + bytes(64),
    "data_past_end": gguf_bytes(tensors=[Tensor("t", (8,))])[:-1],
    "string_too_long": header_bytes([("k" * 2**16, U32(1))]),
}


@pytest.mark.parametrize("code", STRICTER)
def test_where_llama_cpp_is_laxer_the_stricter_rule_holds(
    code: str, library: Path, tmp_path: Path
) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(STRICTER[code])
    with pytest.raises(HeaderError) as caught:
        read_header(path)
    assert caught.value.code == code
    assert "refused" not in judged_by_llama_cpp(library, [path])[0]


@pytest.mark.skipif(not VOCABULARIES, reason="no vocabulary files in ../shared/data/vocab")
@pytest.mark.parametrize("path", VOCABULARIES, ids=lambda path: path.stem)
def test_real_headers_have_the_strings_that_llama_cpp_reads(path: Path, library: Path) -> None:
    file = GgufReader(load(library), path)
    tokens = string_array(read_header(path), "tokenizer.ggml.tokens")
    number = file.call("find_key", ctypes.c_int64, b"tokenizer.ggml.tokens")
    for i, token in enumerate(tokens):
        # A C string ends at the first zero byte.
        expected = token.encode("utf-8", "surrogateescape").split(b"\0")[0]
        assert file.call("get_arr_str", ctypes.c_char_p, number, i) == expected
    file.close()


def string_array(header: Header, key: str) -> tuple[str, ...]:
    elements = header.array(key, ValueType.STRING)
    assert elements is not None
    return tuple(str(element) for element in elements)
