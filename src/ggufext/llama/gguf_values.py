"""Values that llama.cpp's own reader finds in a GGUF file; runs in the child process.

llama-cpp-python wraps llama.h but not gguf.h: the functions and numbers here are those of
ggml/include/gguf.h in llama-cpp-python 0.3.36.
"""

from __future__ import annotations

import ctypes
import os
from typing import TYPE_CHECKING, Any

from ggufext.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ggufext.llama.library import Ggml, Llama

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
    ggml : Ggml
    path : Path
        A GGUF file; of a split model this part only.

    Raises
    ------
    ValueError
        It does not read the file.
    """

    def __init__(self, ggml: Ggml, path: Path) -> None:
        self._ggml = ggml
        self._path = path
        self._file = ggml.function(
            "gguf_init_from_file", ctypes.c_void_p, ctypes.c_char_p, _InitParams
        )(os.fsencode(path), _InitParams(no_alloc=True, ctx=None))
        if not self._file:
            raise ValueError(str(path))

    def call(self, name: str, result: Any, *arguments: bytes | int) -> Any:
        """Call a function of gguf.h on the file, named without ``gguf_``, by its result's type."""
        kinds = (ctypes.c_char_p if isinstance(x, bytes) else ctypes.c_int64 for x in arguments)
        function = self._ggml.function(f"gguf_{name}", result, ctypes.c_void_p, *kinds)
        return function(self._file, *arguments)

    def value(self, key: str) -> _Scalar | None:
        """A scalar or a string; None where the key is absent or an array."""
        number = self.call("find_key", ctypes.c_int64, key.encode())
        if number < 0:
            return None
        kind = self.call("get_kv_type", ctypes.c_int, number)
        if kind not in _GETTERS:
            return None
        name, result = _GETTERS[kind]
        found: _Scalar | bytes = self.call(f"get_val_{name}", result, number)
        return found.decode(errors="replace") if isinstance(found, bytes) else found

    def floats(self, name: str) -> list[float] | None:
        """Elements of a tensor; None where it is absent or no F32."""
        number = self.call("find_tensor", ctypes.c_int64, name.encode())
        if number < 0 or self.call("get_tensor_type", ctypes.c_int, number) != _TYPE_F32:
            return None
        size = self.call("get_tensor_size", ctypes.c_size_t, number)
        start = self.call("get_tensor_offset", ctypes.c_size_t, number)
        start += self.call("get_data_offset", ctypes.c_size_t)
        with self._path.open("rb") as file:
            file.seek(start)
            data = file.read(size)
        return list((ctypes.c_float * (size // 4)).from_buffer_copy(data))

    def close(self) -> None:
        """Give the memory back."""
        self.call("free", None)


def read_values(
    llama: Llama, path: Path, *, keys: Sequence[str], tensors: Sequence[str]
) -> dict[str, Any]:
    """Values of keys and elements of tensors by name, None for what is not there.

    Raises
    ------
    EngineError
        ``model_not_loaded`` with llama.cpp's own words.
    """
    llama.forget_errors()
    try:
        reader = GgufReader(llama.ggml, path)
    except ValueError as error:
        raise EngineError(code="model_not_loaded", message=llama.errors()) from error
    try:
        return {
            "keys": {key: reader.value(key) for key in keys},
            "tensors": {name: reader.floats(name) for name in tensors},
        }
    finally:
        reader.close()
