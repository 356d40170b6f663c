"""llama.cpp's own reader of GGUF headers, through ctypes.

As a program it answers for the tests, since that reader may end the process on a hostile file:
``python ggml.py LIBRARY`` reads a path a line and prints what it found, a line of JSON each, in the
form of `test_differential`.
"""

from __future__ import annotations

import ctypes
import importlib.util
import json
import math
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

FORMATS = dict(enumerate("BbHhIif?")) | {10: "Q", 11: "q", 12: "d"}
FLOAT32, BOOL, STRING, ARRAY, FLOAT64 = 6, 7, 8, 9, 12


class InitParams(ctypes.Structure):
    _fields_ = (("no_alloc", ctypes.c_bool), ("ctx", ctypes.c_void_p))


def ggml_library() -> Path | None:
    """libggml-base.so beside llama_cpp, found without importing that."""
    spec = importlib.util.find_spec("llama_cpp")
    if spec is None or spec.origin is None:
        return None
    library = Path(spec.origin).parent / "lib" / "libggml-base.so"
    return library if library.exists() else None


def load(library: Path) -> ctypes.CDLL:
    """The library with the types of the functions that are used here."""
    ggml = ctypes.CDLL(str(library))
    pointer, number, size = ctypes.c_void_p, ctypes.c_int64, ctypes.c_size_t
    results: dict[str, Any] = {
        "gguf_init_from_file": pointer,
        "gguf_get_alignment": size,
        "gguf_get_data_offset": size,
        "gguf_get_n_kv": number,
        "gguf_find_key": number,
        "gguf_get_key": ctypes.c_char_p,
        "gguf_get_val_str": ctypes.c_char_p,
        "gguf_get_val_data": pointer,
        "gguf_get_arr_n": size,
        "gguf_get_arr_data": pointer,
        "gguf_get_arr_str": ctypes.c_char_p,
        "gguf_get_n_tensors": number,
        "gguf_get_tensor_offset": size,
        "gguf_get_tensor_name": ctypes.c_char_p,
        "gguf_get_tensor_ne": ctypes.POINTER(ctypes.c_int64),
        "gguf_get_tensor_size": size,
        "ggml_type_name": ctypes.c_char_p,
        "ggml_blck_size": number,
        "ggml_type_size": size,
    }
    for name, result in results.items():
        function = getattr(ggml, name)
        function.restype = result
        if name.startswith("gguf_get_arr_str"):
            function.argtypes = [pointer, number, size]
        elif name.startswith("gguf_get"):
            function.argtypes = [pointer, number][: 1 if _asks_the_whole(name) else 2]
    ggml.gguf_init_from_file.argtypes = [ctypes.c_char_p, InitParams]
    ggml.gguf_find_key.argtypes = [pointer, ctypes.c_char_p]
    for name in ("gguf_get_version", "gguf_get_kv_type", "gguf_get_arr_type", "gguf_free"):
        getattr(ggml, name).argtypes = [pointer, number][: 2 if "type" in name else 1]
    ggml.gguf_get_tensor_type.argtypes = [pointer, number]
    return ggml


def _asks_the_whole(name: str) -> bool:
    return name.endswith(("alignment", "data_offset", "n_kv", "n_tensors"))


def shown(type_: int, found: object) -> str:
    """A value in a form that all readers can be brought to."""
    if isinstance(found, bytes | str):
        stored = found if isinstance(found, bytes) else found.encode("utf-8", "surrogateescape")
        return stored.hex()
    if type_ in {FLOAT32, FLOAT64}:
        assert isinstance(found, float)
        return "nan" if math.isnan(found) else found.hex()
    return str(bool(found)) if type_ == BOOL else str(found)


def judge(ggml: ctypes.CDLL, path: str) -> dict[str, Any]:
    """What gguf_init_from_file finds. Its strings are C strings, which end at a zero byte."""
    context = ggml.gguf_init_from_file(path.encode(), InitParams(True, None))
    if not context:
        return {"refused": "by gguf_init_from_file"}
    found = {
        "version": ggml.gguf_get_version(context),
        "alignment": ggml.gguf_get_alignment(context),
        "data_offset": ggml.gguf_get_data_offset(context),
        "keys": [_key(ggml, context, i) for i in range(ggml.gguf_get_n_kv(context))],
        "tensors": [_tensor(ggml, context, i) for i in range(ggml.gguf_get_n_tensors(context))],
    }
    ggml.gguf_free(context)
    return found


def _key(ggml: ctypes.CDLL, context: int, i: int) -> list[Any]:
    type_ = kind = ggml.gguf_get_kv_type(context, i)
    count = 1
    if type_ == ARRAY:
        kind, count = ggml.gguf_get_arr_type(context, i), ggml.gguf_get_arr_n(context, i)
    if kind == STRING:
        values = (
            [ggml.gguf_get_arr_str(context, i, j) for j in range(count)]
            if type_ == ARRAY
            else [ggml.gguf_get_val_str(context, i)]
        )
    else:
        data = ggml.gguf_get_arr_data if type_ == ARRAY else ggml.gguf_get_val_data
        format_ = f"<{count}{FORMATS[kind]}"
        values = list(
            struct.unpack(format_, ctypes.string_at(data(context, i), struct.calcsize(format_)))
            if count
            else ()
        )
    return [ggml.gguf_get_key(context, i).hex(), type_, kind, [shown(kind, v) for v in values]]


def _tensor(ggml: ctypes.CDLL, context: int, i: int) -> list[Any]:
    return [
        ggml.gguf_get_tensor_name(context, i).hex(),
        ggml.gguf_get_tensor_ne(context, i)[:4],
        ggml.ggml_type_name(ggml.gguf_get_tensor_type(context, i)).decode().lower(),
        ggml.gguf_get_tensor_offset(context, i),
        ggml.gguf_get_tensor_size(context, i),
    ]


def judged_by_llama_cpp(library: Path, paths: list[Path]) -> list[dict[str, Any]]:
    """`judge` for each path, in a child process; a death of it is a refusal."""
    child = subprocess.run(
        [sys.executable, __file__, str(library)],
        input="".join(f"{path}\n" for path in paths),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=False,
    )
    found: list[dict[str, Any]] = [json.loads(line) for line in child.stdout.splitlines()]
    if len(found) < len(paths):
        found.append({"refused": "by its death"})
        found += judged_by_llama_cpp(library, paths[len(found) :])
    return found


if __name__ == "__main__":
    _library = load(Path(sys.argv[1]))
    for line in sys.stdin:
        print(json.dumps(judge(_library, line.rstrip("\n"))), flush=True)
