"""The public calls: one native call each, on the machine where the tensors lie."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from ggufext.errors import NativeError

if TYPE_CHECKING:
    from collections.abc import Sequence


_Layout = Literal["interleaved", "half"]
SectionOrder = Literal["blocked", "interleaved"]


class Frequencies(Protocol):
    """What a rotation needs of a plan; `ggufext.planning` plans have it.

    Attributes
    ----------
    inv_freq : sequence of float
        Radians per token, one a pair.
    attention_factor : float
    """

    @property
    def inv_freq(self) -> Sequence[float]:
        """Radians per token, one a pair."""
        ...

    @property
    def attention_factor(self) -> float:
        """Factor of both elements of a pair."""
        ...


def rotate(
    x: Any,
    positions: Any,
    *,
    inv_freq: Any,
    attention_factor: float = 1.0,
    layout: _Layout = "interleaved",
    rotary_dim: int | None = None,
    sections: Sequence[int] | None = None,
    section_order: SectionOrder | None = None,
    inverse: bool = False,
    out: Any = None,
    threads: int | None = None,
) -> Any:
    """Rotate a query or key tensor by its positions (RoPE).

    Each pair (x0, x1) of a head becomes (x0 cos a − x1 sin a, x0 sin a + x1 cos a)·m, where a is
    position times `inv_freq` of the pair and m is `attention_factor`. Angles are exact at every
    position: cos and sin are within 1.5e-7; float32 results within 3e-7·m·hypot(x0, x1), and
    float16 and bfloat16 results within half a unit in the last place plus that.

    Parameters
    ----------
    x : array
        [tokens, heads, head_dim] or [batch, tokens, heads, head_dim] of float32, float16 or
        bfloat16. NumPy (bfloat16 through ml_dtypes), PyTorch, CuPy, or anything with DLPack or
        ``__cuda_array_interface__``. Any strides, except that a head's elements lie side by side.
    positions : array of integers
        [tokens], or [batch, tokens] when `x` has a batch; 0 … 2³¹ − 1 in any order. With
        `sections` a leading axis of as many rows as there are sections. On the CPU, or on the
        device of `x`.
    inv_freq : sequence of float
        Inverse frequencies ω in radians per token, one a pair, finite and ≥ 0: `Plan.inv_freq`.
    attention_factor : float
        Finite and > 0: `Plan.attention_factor`.
    layout : {"interleaved", "half"}
        Pairs are elements 2i and 2i + 1 (llama.cpp's NORM), or i and i + rotary_dim / 2 (NEOX).
    rotary_dim : int, optional
        Elements of each head that rotate, the first ones; the others are copied. Twice the number
        of frequencies, which is also the default.
    sections : sequence of 3 or 4 int, optional
        Pairs that read each row of positions, (t, h, w) or (t, h, w, e).
    section_order : {"blocked", "interleaved"}, optional
        With `sections`: one block a row (MROPE), or rows in turn (IMROPE).
    inverse : bool
        Undo the rotation: angles negated, divided by `attention_factor`.
    out : array, optional
        Where the result goes; ``out=x`` rotates in place. By default a new array of the library
        of `x`, in C order.
    threads : int, optional
        CPU threads, ≥ 1; by default as many as there are processors when the tensor is large.

    Returns
    -------
    array
        `out`, or the new array.

    Raises
    ------
    TypeError, ValueError
        An argument is wrong: it is named, with what was found and what was expected. Nothing has
        been written then. A layout that would need a copy and buffers that overlap are errors.
    NativeError
        The native module is missing, or, for a tensor on a CUDA device, its CUDA part.

    Notes
    -----
    Source: Su et al. 2021, RoFormer; section rows as in llama.cpp's ggml_mrope_cache_init.
    """
    return _rotate(
        (x, None),
        positions,
        (inv_freq, attention_factor),
        (layout, rotary_dim, sections, section_order, inverse),
        out=out,
        threads=threads,
    )


def rotate_qk(
    q: Any,
    k: Any,
    positions: Any,
    *,
    inv_freq: Any,
    attention_factor: float = 1.0,
    layout: _Layout = "interleaved",
    rotary_dim: int | None = None,
    sections: Sequence[int] | None = None,
    section_order: SectionOrder | None = None,
    inverse: bool = False,
    out: tuple[Any, Any] | None = None,
    threads: int | None = None,
) -> tuple[Any, Any]:
    """Rotate queries and keys of the same tokens in one call.

    Parameters
    ----------
    q, k : array
        As `x` of `rotate`; the same type, place, batch and tokens; heads may differ. Views of one
        fused QKV tensor are welcome.
    out : tuple of array, optional
        (q_out, k_out); ``out=(q, k)`` rotates in place.
    positions, inv_freq, attention_factor, layout, rotary_dim, sections, section_order, inverse, \
    threads
        As in `rotate`.

    Returns
    -------
    tuple of array
        Rotated queries and keys.

    Raises
    ------
    TypeError, ValueError, NativeError
        As `rotate`.
    """
    if k is None:
        raise TypeError("k: is None, expected an array like q")
    result: tuple[Any, Any] = _rotate(
        (q, k),
        positions,
        (inv_freq, attention_factor),
        (layout, rotary_dim, sections, section_order, inverse),
        out=out,
        threads=threads,
    )
    return result


def rebase(
    k: Any,
    positions: Any,
    old: Frequencies,
    new: Frequencies,
    *,
    layout: _Layout = "interleaved",
    rotary_dim: int | None = None,
    sections: Sequence[int] | None = None,
    section_order: SectionOrder | None = None,
    out: Any = None,
    threads: int | None = None,
) -> Any:
    """Move keys that one plan rotated to another plan, in one pass.

    The result is what rotating back by `old` and forth by `new` would give, without the rounding
    in between: one rotation by the difference of the angles, exact like `rotate`.

    Parameters
    ----------
    k : array
        Rotated keys, as `x` of `rotate`.
    positions : array of integers
        The positions with which they were rotated.
    old, new : Frequencies
        Plans with as many frequencies each.
    layout, rotary_dim, sections, section_order, out, threads
        As in `rotate`.

    Returns
    -------
    array
        `out`, or a new array.

    Raises
    ------
    TypeError, ValueError, NativeError
        As `rotate`.
    """
    return _rotate(
        (k, None),
        positions,
        (new.inv_freq, new.attention_factor),
        (layout, rotary_dim, sections, section_order, False),
        out=out,
        threads=threads,
        old=(old.inv_freq, old.attention_factor),
    )


def _rotate(
    tensors: tuple[Any, Any],
    positions: Any,
    frequencies: tuple[Any, Any],
    form: tuple[Any, Any, Any, Any, Any],
    *,
    out: Any,
    threads: int | None,
    old: tuple[Any, Any] = (None, 1.0),
) -> Any:
    first, second = tensors
    if not isinstance(first, np.ndarray):
        if out is None and second is None:
            out = _allocate_like(first, "x" if old[0] is None else "k")
        elif out is None:
            out = (_allocate_like(first, "q"), _allocate_like(second, "k"))
        if _is_on_cuda(first):
            stream = _stream_of(first)
            return _cuda_module().rope_rotate(
                first, second, positions, *frequencies, *form, out, stream, *old
            )
    return _cpu_module().rope_rotate(
        first, second, positions, *frequencies, *form, out, threads, *old
    )


#: DLPack's numbers for memory that CUDA kernels work on: device and managed.
_CUDA_DEVICES = (2, 13)

#: CUDA's legacy default stream, which waits for all others.
_LEGACY_STREAM = 0


def _is_on_cuda(array: Any) -> bool:
    """Whether an array lies on a CUDA device; False for what is no array at all."""
    if hasattr(array, "__dlpack_device__"):
        return array.__dlpack_device__()[0] in _CUDA_DEVICES
    return hasattr(array, "__cuda_array_interface__")


def _stream_of(array: Any) -> int:
    """Stream on which the owner of an array works now, as the address of a CUDA stream.

    PyTorch's and CuPy's current stream of the array's device; for others the stream that
    ``__cuda_array_interface__`` names, or the legacy default stream.
    """
    library = _library(array)
    if library == "torch":
        torch = sys.modules["torch"]
        return int(torch.cuda.current_stream(array.device).cuda_stream)
    if library == "cupy":
        return int(sys.modules["cupy"].cuda.get_current_stream(array.device.id).ptr)
    named = getattr(array, "__cuda_array_interface__", {}).get("stream")
    return _LEGACY_STREAM if named is None else int(named)


def _allocate_like(array: Any, name: str) -> Any:
    """Return a new array in C order, of the library, type, shape and device of another.

    Parameters
    ----------
    array : array
    name : str
        The argument it came from, for errors.

    Raises
    ------
    TypeError
        It is no array.
    ValueError
        It is of a library for which the caller has to allocate.
    """
    library = _library(array)
    if library == "torch":
        return array.new_empty(array.shape)
    if library == "cupy":
        with array.device:
            return sys.modules["cupy"].empty(array.shape, array.dtype)
    if not hasattr(array, "__dlpack__") and not hasattr(array, "__cuda_array_interface__"):
        raise TypeError(
            f"{name}: is {type(array).__name__}, expected a NumPy array or an array with DLPack or "
            "__cuda_array_interface__ (PyTorch, CuPy)"
        )
    raise ValueError(
        f"out: is needed for arrays of type {type(array).__name__}; pass out=x to rotate in place"
    )


def _cpu_module() -> Any:
    """Return the native module of this package.

    Raises
    ------
    NativeError
        ``not_built``: this installation was built without it.
    """
    try:
        import ggufext._core
    except ImportError as error:
        raise NativeError(
            code="not_built",
            message="rotating needs the native module, which this installation does not have "
            f"({error}); install a C++17 compiler and Python's headers and run `pip install` with "
            "--force-reinstall and --no-cache-dir; ggufext.rope.reference.rotate does the same in "
            "NumPy, slowly",
        ) from error
    return ggufext._core


def _cuda_module() -> Any:
    """Return the CUDA part of this package.

    Raises
    ------
    NativeError
        ``not_built``: this installation was built without it.
    """
    try:
        return importlib.import_module("ggufext._cuda")
    except ImportError as error:
        raise NativeError(
            code="not_built",
            message="the tensor lies on a CUDA device, but this installation has no CUDA kernels "
            f"({error}); install a CUDA toolkit (nvcc) and reinstall with "
            "CMAKE_ARGS=-DGGUFEXT_CUDA=ON, or move the tensor to the CPU",
        ) from error


def _library(array: Any) -> str:
    return type(array).__module__.partition(".")[0]
