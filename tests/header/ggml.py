"""llama.cpp's own reader of GGUF headers, through ctypes.

As a program it answers for the tests, since that reader may end the process on a hostile file:
``python ggml.py LIBRARY`` reads a path a line and prints what it found, a line of JSON each, in the
form of `test_differential`.
"""

from __future__ import annotations

import ctypes
import json
import math
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

from ggufext.llama.library import Ggml, GgufReader

FORMATS = dict(enumerate("BbHhIif?")) | {10: "Q", 11: "q", 12: "d"}
FLOAT32, BOOL, STRING, ARRAY, FLOAT64 = 6, 7, 8, 9, 12


def load(library: Path) -> Ggml:
    """The functions of a library."""
    return Ggml(ctypes.CDLL(str(library)))


def shown(type_: int, found: object) -> str:
    """A value in a form that all readers can be brought to."""
    if isinstance(found, bytes | str):
        stored = found if isinstance(found, bytes) else found.encode("utf-8", "surrogateescape")
        return stored.hex()
    if type_ in {FLOAT32, FLOAT64}:
        assert isinstance(found, float)
        return "nan" if math.isnan(found) else found.hex()
    return str(bool(found)) if type_ == BOOL else str(found)


def judge(ggml: Ggml, path: str) -> dict[str, Any]:
    """What gguf_init_from_file finds. Its strings are C strings, which end at a zero byte."""
    try:
        file = GgufReader(ggml, Path(path))
    except ValueError:
        return {"refused": "by gguf_init_from_file"}
    found = {
        "version": file.call("get_version", ctypes.c_uint32),
        "alignment": file.call("get_alignment", ctypes.c_size_t),
        "data_offset": file.call("get_data_offset", ctypes.c_size_t),
        "keys": [_key(file, i) for i in range(file.call("get_n_kv", ctypes.c_int64))],
        "tensors": [
            _tensor(ggml, file, i) for i in range(file.call("get_n_tensors", ctypes.c_int64))
        ],
    }
    file.close()
    return found


def _key(file: GgufReader, i: int) -> list[Any]:
    type_ = kind = file.call("get_kv_type", ctypes.c_int, i)
    count, what = 1, "val"
    if type_ == ARRAY:
        kind = file.call("get_arr_type", ctypes.c_int, i)
        count, what = file.call("get_arr_n", ctypes.c_size_t, i), "arr"
    values: list[object] = []
    if kind == STRING:
        places = [(i, j) for j in range(count)] if type_ == ARRAY else [(i,)]
        values = [file.call(f"get_{what}_str", ctypes.c_char_p, *place) for place in places]
    elif count:
        format_ = f"<{count}{FORMATS[kind]}"
        data = file.call(f"get_{what}_data", ctypes.c_void_p, i)
        values = list(struct.unpack(format_, ctypes.string_at(data, struct.calcsize(format_))))
    name = file.call("get_key", ctypes.c_char_p, i)
    return [name.hex(), type_, kind, [shown(kind, value) for value in values]]


def _tensor(ggml: Ggml, file: GgufReader, i: int) -> list[Any]:
    return [
        file.call("get_tensor_name", ctypes.c_char_p, i).hex(),
        file.call("get_tensor_ne", ctypes.POINTER(ctypes.c_int64), i)[:4],
        ggml.type_name(file.call("get_tensor_type", ctypes.c_int, i)).lower(),
        file.call("get_tensor_offset", ctypes.c_size_t, i),
        file.call("get_tensor_size", ctypes.c_size_t, i),
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
