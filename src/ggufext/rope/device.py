"""Arrays of other libraries: where they lie, their stream, new ones like them."""

from __future__ import annotations

import importlib
import sys
from typing import Any

from ggufext.errors import NativeError

#: DLPack's numbers for memory that CUDA kernels work on: device and managed.
CUDA_DEVICES = (2, 13)

#: CUDA's legacy default stream, which waits for all others.
LEGACY_STREAM = 0


def is_on_cuda(array: Any) -> bool:
    """Whether an array lies on a CUDA device; False for what is no array at all."""
    if hasattr(array, "__dlpack_device__"):
        return array.__dlpack_device__()[0] in CUDA_DEVICES
    return hasattr(array, "__cuda_array_interface__")


def stream_of(array: Any) -> int:
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
    return LEGACY_STREAM if named is None else int(named)


def allocate_like(array: Any, name: str) -> Any:
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


def cuda_module() -> Any:
    """Return the CUDA part of this package.

    Raises
    ------
    NativeError
        ``cuda_not_built``: this installation was built without it.
    """
    try:
        return importlib.import_module("ggufext._cuda")
    except ImportError as error:
        raise NativeError(
            code="cuda_not_built",
            message="the tensor lies on a CUDA device, but this installation has no CUDA kernels "
            f"({error}); install a CUDA toolkit (nvcc) and reinstall with "
            "CMAKE_ARGS=-DGGUFEXT_CUDA=ON, or move the tensor to the CPU",
        ) from error


def _library(array: Any) -> str:
    return type(array).__module__.partition(".")[0]
