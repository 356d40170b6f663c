"""ggml's RoPE on the CPU, called through ctypes in the llama.cpp that is installed.

The tensor's memory belongs to ggml and is visible as a NumPy array, so that a benchmark or a test
can run both programs on the same bytes.
"""

from __future__ import annotations

import ctypes
from ctypes import POINTER, Structure, byref, c_bool, c_float, c_int, c_int64, c_size_t, c_void_p
from typing import TYPE_CHECKING, Any

import numpy as np

from ggufext.errors import EngineError
from ggufext.llama.binding import installed

if TYPE_CHECKING:
    from pathlib import Path

NORM, NEOX, MROPE, IMROPE = 0, 2, 8, 40
_F32, _F16, _I32 = 0, 1, 26
_OVERHEAD = 1 << 20


class _InitParams(Structure):
    _fields_ = (("mem_size", c_size_t), ("mem_buffer", c_void_p), ("no_alloc", c_bool))


class _Plan(Structure):
    _fields_ = (
        ("work_size", c_size_t),
        ("work_data", c_void_p),
        ("n_threads", c_int),
        ("threadpool", c_void_p),
        ("abort_callback", c_void_p),
        ("abort_callback_data", c_void_p),
        ("use_ref", c_bool),
    )


def library() -> Path | None:
    """The library of llama.cpp that ggufext uses; None when none is installed."""
    try:
        return installed().path
    except EngineError:
        return None


class GgmlRope:
    """One in-place rotation [tokens, heads, head_dim], prepared once, run as often as wanted.

    Parameters
    ----------
    shape : tuple of int
        [tokens, heads, head_dim].
    dtype : numpy dtype
        float32 or float16; ggml has no bfloat16 rotation.
    mode : int
        NORM, NEOX, MROPE or IMROPE.
    freq_base : float
    threads : int
    sections : tuple of 4 int, optional
        For MROPE and IMROPE; `positions` then has 4 rows.

    Attributes
    ----------
    data : ndarray
        The tensor.
    positions : ndarray of int32
        [tokens], or [4, tokens].
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        dtype: Any,
        *,
        mode: int,
        freq_base: float = 10000.0,
        threads: int = 1,
        sections: tuple[int, int, int, int] | None = None,
    ) -> None:
        self._ggml = ctypes.CDLL(str(installed().path))
        self._declare()
        self._ggml.ggml_cpu_init()
        tokens, heads, head_dim = shape
        rows = tokens * (4 if sections else 1)
        size = tokens * heads * head_dim * np.dtype(dtype).itemsize
        self._context = self._ggml.ggml_init(_InitParams(size + 4 * rows + _OVERHEAD, None, False))
        kind = _F16 if np.dtype(dtype) == np.float16 else _F32
        tensor = self._ggml.ggml_new_tensor_3d(self._context, kind, head_dim, heads, tokens)
        positions = self._ggml.ggml_new_tensor_1d(self._context, _I32, rows)
        yarn_off = (c_float(1.0), c_float(0.0), c_float(1.0), c_float(32.0), c_float(1.0))
        form = (c_int(mode), c_int(0), c_float(freq_base), *yarn_off)
        if sections is None:
            result = self._ggml.ggml_rope_ext_inplace(
                self._context, tensor, positions, None, c_int(head_dim), *form
            )
        else:
            result = self._ggml.ggml_rope_multi_inplace(
                self._context,
                tensor,
                positions,
                None,
                c_int(head_dim),
                (c_int * 4)(*sections),
                *form,
            )
        self._graph = c_void_p(self._ggml.ggml_new_graph(self._context))
        self._ggml.ggml_build_forward_expand(self._graph, c_void_p(result))
        self._plan = self._ggml.ggml_graph_plan(self._graph, c_int(threads), None)
        self._work = ctypes.create_string_buffer(self._plan.work_size + 64)
        self._plan.work_data = ctypes.cast(self._work, c_void_p)
        self.data = self._view(tensor, (tokens, heads, head_dim), np.dtype(dtype))
        self.positions = self._view(
            positions, (4, tokens) if sections else (tokens,), np.dtype(np.int32)
        )

    def run(self) -> None:
        """Rotate `data` in place."""
        status = self._ggml.ggml_graph_compute(self._graph, byref(self._plan))
        if status != 0:
            raise RuntimeError(f"ggml_graph_compute returned {status}")

    def close(self) -> None:
        """Free the tensor; `data` must not be used afterwards."""
        self._ggml.ggml_free(c_void_p(self._context))

    def _declare(self) -> None:
        ggml = self._ggml
        ggml.ggml_init.argtypes = [_InitParams]
        ggml.ggml_new_tensor_3d.argtypes = [c_void_p, c_int, c_int64, c_int64, c_int64]
        ggml.ggml_new_tensor_1d.argtypes = [c_void_p, c_int, c_int64]
        floats: list[Any] = [c_int, c_int, *[c_float] * 6]
        pointers: list[Any] = [c_void_p] * 4
        ggml.ggml_rope_ext_inplace.argtypes = [*pointers, c_int, *floats]
        ggml.ggml_rope_multi_inplace.argtypes = [*pointers, c_int, POINTER(c_int), *floats]
        for name in (
            "ggml_init",
            "ggml_new_tensor_3d",
            "ggml_new_tensor_1d",
            "ggml_rope_ext_inplace",
            "ggml_rope_multi_inplace",
            "ggml_new_graph",
            "ggml_get_data",
        ):
            getattr(ggml, name).restype = c_void_p
        ggml.ggml_new_graph.argtypes = [c_void_p]
        ggml.ggml_get_data.argtypes = [c_void_p]
        ggml.ggml_graph_plan.restype = _Plan
        ggml.ggml_graph_plan.argtypes = [c_void_p, c_int, c_void_p]
        ggml.ggml_graph_compute.argtypes = [c_void_p, POINTER(_Plan)]

    def _view(self, tensor: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
        count = int(np.prod(shape))
        bytes_ = (ctypes.c_uint8 * (count * dtype.itemsize)).from_address(
            self._ggml.ggml_get_data(tensor)
        )
        return np.frombuffer(memoryview(bytes_), dtype=dtype, count=count).reshape(shape)
