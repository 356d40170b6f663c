"""Other readers: gguf-py agrees about values, and what llama.cpp refuses we refuse."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gguf_bytes import (
    BOOL,
    U32,
    U64,
    UINT32,
    Array,
    Tensor,
    gguf_bytes,
    header_bytes,
)
from ggufext import _core
from ggufext.errors import HeaderError
from ggufext.header import Header, ValueType, read_header

SHARED = Path(os.environ.get("GGUFEXT_SHARED", Path(__file__).parents[2].parent / "shared"))
VOCABULARIES = sorted((SHARED / "data" / "vocab").glob("*.gguf"))
#: gguf-py needs up to 40 seconds for the others.
SMALL_VOCABULARIES = [path for path in VOCABULARIES if path.stat().st_size < 2_000_000]


def ggml_library() -> Path | None:
    """libggml-base.so beside llama_cpp, found without importing that."""
    spec = importlib.util.find_spec("llama_cpp")
    if spec is None or spec.origin is None:
        return None
    library = Path(spec.origin).parent / "lib" / "libggml-base.so"
    return library if library.exists() else None


GGML = ggml_library()
needs_ggml = pytest.mark.skipif(GGML is None, reason="llama-cpp-python is not installed")

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


def test_tensor_types_have_the_sizes_of_gguf_py() -> None:
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    ours = {number: (block_size, size) for number, _, block_size, size in _core.ggml_types()}
    names = {number: name for number, name, _, _ in _core.ggml_types()}
    for type_, sizes in GGML_QUANT_SIZES.items():
        assert names[int(type_)] == type_.name
        # gguf-py counts two 32-bit scales, where llama.cpp's block has two of 16 bits.
        if type_ is not GGMLQuantizationType.Q8_1:
            assert ours[int(type_)] == sizes


# llama.cpp.


class InitParams(ctypes.Structure):
    _fields_ = (("no_alloc", ctypes.c_bool), ("ctx", ctypes.c_void_p))


@needs_ggml
def test_tensor_types_have_the_sizes_of_llama_cpp() -> None:
    ggml = ctypes.CDLL(str(GGML))
    ggml.ggml_blck_size.restype = ctypes.c_int64
    ggml.ggml_type_size.restype = ctypes.c_size_t
    ours = {number: (block_size, size) for number, _, block_size, size in _core.ggml_types()}
    for number in range(43):
        theirs = (ggml.ggml_blck_size(number), ggml.ggml_type_size(number))
        assert ours.get(number, (0, 0)) == theirs


CHILD = """
import ctypes, sys

class InitParams(ctypes.Structure):
    _fields_ = (("no_alloc", ctypes.c_bool), ("ctx", ctypes.c_void_p))

ggml = ctypes.CDLL(sys.argv[1])
ggml.gguf_init_from_file.restype = ctypes.c_void_p
ggml.gguf_init_from_file.argtypes = [ctypes.c_char_p, InitParams]
for line in sys.stdin:
    accepted = ggml.gguf_init_from_file(line.strip().encode(), InitParams(True, None))
    print(int(bool(accepted)), flush=True)
"""


def accepted_by_llama_cpp(paths: list[Path]) -> list[bool]:
    """Verdicts of gguf_init_from_file, in a child process as it may abort on hostile files."""
    child = subprocess.run(
        [sys.executable, "-c", CHILD, str(GGML)],
        input="".join(f"{path}\n" for path in paths),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=False,
    )
    verdicts = [line == "1" for line in child.stdout.split()]
    if len(verdicts) < len(paths):  # it died: that is no acceptance
        verdicts.append(False)
        verdicts += accepted_by_llama_cpp(paths[len(verdicts) :])
    return verdicts


def accepted_here(path: Path) -> bool:
    try:
        read_header(path)
    except HeaderError:
        return False
    return True


MODEL = gguf_bytes(
    {
        "general.architecture": "llama",
        "llama.context_length": U32(4096),
        "tokens": ["a", "bc", "", "Ġd"],
        "types": Array(UINT32, [1, 2, 3]),
        "flags": Array(BOOL, [True, False]),
        "large": U64(2**63),
    },
    [Tensor("token_embd.weight", (32, 3), "Q8_0"), Tensor("b", (5,)), Tensor("c", (256,), "Q4_K")],
    alignment=64,
)


def mutations(count: int) -> list[bytes]:
    """The model with one to three random changes, the same ones in every run."""
    source = random.Random(20)
    numbers = [0, 1, 2, 8, 9, 12, 13, 63, 64, 2**16, 2**20, 2**30 - 1, 2**30, 2**31, 2**63 - 1, -1]
    files = []
    for _ in range(count):
        data = bytearray(MODEL)
        for _ in range(source.randint(1, 3)):
            at = source.randrange(len(data))
            match source.choice(["byte", "number", "insert", "remove", "cut"]):
                case "byte":
                    data[at] = source.randrange(256)
                case "number":
                    size = source.choice([4, 8])
                    number = source.choice(numbers) % 2**64
                    data[at : at + size] = number.to_bytes(8, "little")[:size]
                case "insert":
                    data[at:at] = source.randbytes(source.randint(1, 9))
                case "remove":
                    del data[at : at + source.randint(1, 9)]
                case "cut":
                    del data[max(at, 4) :]
        files.append(bytes(data))
    return files


@needs_ggml
def test_whatever_llama_cpp_refuses_is_refused_here(tmp_path: Path) -> None:
    paths = []
    for i, data in enumerate(mutations(3000)):
        paths.append(tmp_path / f"{i}.gguf")
        paths[-1].write_bytes(data)
    verdicts = list(zip(paths, accepted_by_llama_cpp(paths), strict=True))

    laxer = [path for path, accepted in verdicts if accepted_here(path) and not accepted]
    assert laxer == []
    assert sum(accepted for _, accepted in verdicts) > 100  # the mutations leave some valid


@needs_ggml
def test_a_valid_file_is_accepted_by_both(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(MODEL)
    assert accepted_here(path)
    assert accepted_by_llama_cpp([path]) == [True]


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


@needs_ggml
@pytest.mark.parametrize("code", STRICTER)
def test_where_llama_cpp_is_laxer_the_stricter_rule_holds(code: str, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(STRICTER[code])
    with pytest.raises(HeaderError) as caught:
        read_header(path)
    assert caught.value.code == code
    assert accepted_by_llama_cpp([path]) == [True]


@needs_ggml
@pytest.mark.skipif(not VOCABULARIES, reason="no vocabulary files in ../shared/data/vocab")
@pytest.mark.parametrize("path", VOCABULARIES, ids=lambda path: path.stem)
def test_real_headers_have_the_strings_that_llama_cpp_reads(path: Path) -> None:
    ggml = ctypes.CDLL(str(GGML))
    ggml.gguf_init_from_file.restype = ctypes.c_void_p
    ggml.gguf_init_from_file.argtypes = [ctypes.c_char_p, InitParams]
    ggml.gguf_find_key.restype = ctypes.c_int64
    ggml.gguf_find_key.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    ggml.gguf_get_arr_str.restype = ctypes.c_char_p
    ggml.gguf_get_arr_str.argtypes = [ctypes.c_void_p, ctypes.c_int64, ctypes.c_size_t]
    ggml.gguf_free.argtypes = [ctypes.c_void_p]

    context = ggml.gguf_init_from_file(str(path).encode(), InitParams(True, None))
    tokens = string_array(read_header(path), "tokenizer.ggml.tokens")
    number = ggml.gguf_find_key(context, b"tokenizer.ggml.tokens")
    for i, token in enumerate(tokens):
        # A C string ends at the first zero byte.
        expected = token.encode("utf-8", "surrogateescape").split(b"\0")[0]
        assert ggml.gguf_get_arr_str(context, number, i) == expected
    ggml.gguf_free(context)


def string_array(header: Header, key: str) -> tuple[str, ...]:
    elements = header.array(key, ValueType.STRING)
    assert elements is not None
    return tuple(str(element) for element in elements)
