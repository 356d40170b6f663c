"""Values that llama.cpp's own reader finds in a GGUF file; runs in the child process.

llama-cpp-python wraps llama.h but not gguf.h: the functions and numbers here are those of
ggml/include/gguf.h in llama-cpp-python 0.3.36.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ggufext.llama.library import RefusalError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ggufext.llama.library import Llama

#: By the number of a scalar's type: how gguf.h names its getter, and what that returns.
_GETTERS: dict[int, tuple[str, Any]] = {
    0: ("u8", ctypes.c_uint8),
    1: ("i8", ctypes.c_int8),
    2: ("u16", ctypes.c_uint16),
    3: ("i16", ctypes.c_int16),
    4: ("u32", ctypes.c_uint32),
    5: ("i32", ctypes.c_int32),
    6: ("f32", ctypes.c_float),
    7: ("bool", ctypes.c_bool),
    8: ("str", ctypes.c_char_p),
    10: ("u64", ctypes.c_uint64),
    11: ("i64", ctypes.c_int64),
    12: ("f64", ctypes.c_double),
}

#: GGML_TYPE_F32 of ggml.h.
_TYPE_F32 = 0

_Scalar = bool | int | float | str


class _InitParams(ctypes.Structure):
    """``struct gguf_init_params``: no tensor is loaded."""

    _fields_ = (("no_alloc", ctypes.c_bool), ("ctx", ctypes.c_void_p))


class GgufReader:
    """A file as gguf_init_from_file reads it.

    Parameters
    ----------
    llama : Llama
        The library.
    path : str
        A GGUF file; of a split model this part only.

    Raises
    ------
    RefusalError
        ``model_not_loaded`` with llama.cpp's own words.
    """

    def __init__(self, llama: Llama, path: str) -> None:
        self._ggml = llama.ggml
        self._path = Path(path)
        self._file = self._ggml.function(
            "gguf_init_from_file", ctypes.c_void_p, ctypes.c_char_p, _InitParams
        )(os.fsencode(path), _InitParams(no_alloc=True, ctx=None))
        if not self._file:
            raise RefusalError("model_not_loaded", llama.errors())

    def value(self, key: str) -> _Scalar | None:
        """A scalar or a string; None where the key is absent or an array."""
        number = self._get("find_key", ctypes.c_int64, ctypes.c_char_p, key.encode())
        if number < 0:
            return None
        kind = self._get("get_kv_type", ctypes.c_int, ctypes.c_int64, number)
        if kind not in _GETTERS:
            return None
        name, result = _GETTERS[kind]
        found: _Scalar | bytes = self._get(f"get_val_{name}", result, ctypes.c_int64, number)
        return found.decode(errors="replace") if isinstance(found, bytes) else found

    def floats(self, name: str) -> list[float] | None:
        """Elements of a tensor; None where it is absent or no F32."""
        number = self._get("find_tensor", ctypes.c_int64, ctypes.c_char_p, name.encode())
        if number < 0:
            return None
        if self._get("get_tensor_type", ctypes.c_int, ctypes.c_int64, number) != _TYPE_F32:
            return None
        size = self._get("get_tensor_size", ctypes.c_size_t, ctypes.c_int64, number)
        start = self._get("get_tensor_offset", ctypes.c_size_t, ctypes.c_int64, number)
        start += self._ggml.function("gguf_get_data_offset", ctypes.c_size_t, ctypes.c_void_p)(
            self._file
        )
        with self._path.open("rb") as file:
            file.seek(start)
            data = file.read(size)
        return list((ctypes.c_float * (size // 4)).from_buffer_copy(data))

    def close(self) -> None:
        """Give the memory back."""
        self._ggml.function("gguf_free", None, ctypes.c_void_p)(self._file)

    def _get(self, name: str, result: Any, kind: Any, argument: object) -> Any:
        return self._ggml.function(f"gguf_{name}", result, ctypes.c_void_p, kind)(
            self._file, argument
        )


def read_values(
    llama: Llama, path: str, *, keys: Sequence[str], tensors: Sequence[str]
) -> dict[str, Any]:
    """Values of keys and elements of tensors by name, None for what is not there.

    Raises
    ------
    RefusalError
        As `GgufReader`.
    """
    reader = GgufReader(llama, path)
    try:
        return {
            "keys": {key: reader.value(key) for key in keys},
            "tensors": {name: reader.floats(name) for name in tensors},
        }
    finally:
        reader.close()
