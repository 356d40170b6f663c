"""ggml's tensor as llama.cpp hands it to an evaluation callback; layout checked before use.

llama-cpp-python wraps llama.h but not ggml.h. The layout is that of ggml/include/ggml.h in
llama-cpp-python 0.3.36; `Ggml.verify` compares it with what the loaded library says.
"""

from __future__ import annotations

import ctypes
import socket
from typing import Any

_MAX_DIMS, _MAX_OP_PARAMS, _MAX_SRC, _MAX_NAME = 4, 16, 10, 64

#: Bytes of ``struct ggml_object``, which `ggml_tensor_overhead` counts beside the tensor.
_OBJECT_BYTES = 32

#: An RPC worker that takes longer to answer is taken for absent.
_CONNECT_SECONDS = 10

#: GGML_BACKEND_DEVICE_TYPE_GPU of ggml-backend.h.
_DEVICE_GPU = 1


class LayoutError(Exception):
    """The loaded ggml lays its tensors out differently from this module."""


class Tensor(ctypes.Structure):
    """``struct ggml_tensor``."""


Tensor._fields_ = [
    ("type", ctypes.c_int32),
    ("buffer", ctypes.c_void_p),
    ("ne", ctypes.c_int64 * _MAX_DIMS),
    ("nb", ctypes.c_size_t * _MAX_DIMS),
    ("op", ctypes.c_int32),
    ("op_params", ctypes.c_int32 * _MAX_OP_PARAMS),
    ("flags", ctypes.c_int32),
    ("src", ctypes.POINTER(Tensor) * _MAX_SRC),
    ("view_src", ctypes.POINTER(Tensor)),
    ("view_offs", ctypes.c_size_t),
    ("data", ctypes.c_void_p),
    ("name", ctypes.c_char * _MAX_NAME),
    ("extra", ctypes.c_void_p),
    ("padding", ctypes.c_char * 8),
]


class Ggml:
    """Functions of the ggml that llama.cpp has loaded.

    Parameters
    ----------
    library : ctypes.CDLL
        libllama; the names are found in the libggml it depends on.
    """

    def __init__(self, library: Any) -> None:
        self._library = library
        self._op_name = self.function("ggml_op_name", ctypes.c_char_p, ctypes.c_int)
        self._op_desc = self.function("ggml_op_desc", ctypes.c_char_p, ctypes.c_void_p)
        self._type_name = self.function("ggml_type_name", ctypes.c_char_p, ctypes.c_int)
        self._get_name = self.function("ggml_get_name", ctypes.c_void_p, ctypes.c_void_p)
        self._get_data = self.function("ggml_get_data", ctypes.c_void_p, ctypes.c_void_p)
        self._nbytes = self.function("ggml_nbytes", ctypes.c_size_t, ctypes.c_void_p)
        self._nelements = self.function("ggml_nelements", ctypes.c_int64, ctypes.c_void_p)
        self._overhead = self.function("ggml_tensor_overhead", ctypes.c_size_t)

    def function(self, name: str, result: Any, *arguments: Any) -> Any:
        """A C function by its name and the ctypes types of its result and arguments."""
        function = getattr(self._library, name)
        function.restype, function.argtypes = result, arguments
        return function

    def op_name(self, tensor: Tensor) -> str:
        """Name of the operation that makes the tensor, as ``"ROPE"``."""
        return _text(self._op_name(tensor.op))

    def type_name(self, number: int) -> str:
        """Name of a tensor type, as ``"q8_0"``."""
        return _text(self._type_name(number))

    def nbytes(self, tensor: Tensor) -> int:
        """Bytes that the tensor occupies."""
        return int(self._nbytes(ctypes.byref(tensor)))

    def device_memory(self) -> int:
        """Free bytes of all devices that have a memory of their own."""
        pointer = ctypes.c_void_p
        count = self.function("ggml_backend_dev_count", ctypes.c_size_t)
        get = self.function("ggml_backend_dev_get", pointer, ctypes.c_size_t)
        kind = self.function("ggml_backend_dev_type", ctypes.c_int, pointer)
        size = ctypes.POINTER(ctypes.c_size_t)
        memory = self.function("ggml_backend_dev_memory", None, pointer, size, size)
        free, total, found = ctypes.c_size_t(), ctypes.c_size_t(), 0
        for device in map(get, range(count())):
            if kind(device) == _DEVICE_GPU:
                memory(device, ctypes.byref(free), ctypes.byref(total))
                found += free.value
        return found

    def add_rpc_server(self, address: str) -> None:
        """Make a remote llama.cpp worker (``host:port``) one of the devices.

        Raises
        ------
        ValueError
            When nobody answers there.
        """
        # llama.cpp ends the process when it cannot connect.
        host, _, port = address.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), _CONNECT_SECONDS).close()
        except (OSError, ValueError, OverflowError) as error:
            raise ValueError(
                f"no llama.cpp RPC worker answers at {address} ({error}); an address looks like "
                "192.168.1.7:50052"
            ) from None
        text, pointer = ctypes.c_char_p, ctypes.c_void_p
        registry = self.function("ggml_backend_reg_by_name", pointer, text)
        find = self.function("ggml_backend_reg_get_proc_address", pointer, pointer, text)
        function = find(registry(b"RPC"), b"ggml_backend_rpc_add_server")
        server = ctypes.CFUNCTYPE(pointer, text)(function)(address.encode())
        register = self.function("ggml_backend_register", None, pointer)
        if not server:
            raise ValueError(f"no llama.cpp RPC worker answers at {address}")
        register(server)

    def verify(self, tensor: Tensor) -> None:
        """Compare the layout with the library's own view of a live tensor.

        Raises
        ------
        LayoutError
            When a field lies elsewhere in this build.
        """
        address = ctypes.addressof(tensor)
        elements = 1
        for extent in tensor.ne:
            elements *= extent
        found = {
            "size": (ctypes.sizeof(Tensor), int(self._overhead()) - _OBJECT_BYTES),
            "ne": (elements, self._nelements(address)),
            "op": (self.op_name(tensor), _text(self._op_desc(address))),
            "data": (tensor.data, self._get_data(address)),
            "name": (address + Tensor.name.offset, self._get_name(address)),
        }
        wrong = {field: pair for field, pair in found.items() if pair[0] != pair[1]}
        if wrong:
            raise LayoutError(f"struct ggml_tensor is laid out differently here: {wrong}")


def _text(value: bytes | None) -> str:
    return value.decode() if value is not None else ""
