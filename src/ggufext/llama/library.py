"""The libraries of llama.cpp in the child process: what is called of llama.h, ggml.h and gguf.h."""

from __future__ import annotations

import ctypes
import os
import socket
import sys
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ggufext.errors import EngineError
from ggufext.llama.binding import (
    OVERRIDE_TAGS,
    SCALING_TYPES,
    KvOverride,
    LogCallback,
    NodeCallback,
    installed,
    load,
    named,
    unknown,
)
from ggufext.llama.settings import MTP_CONTEXT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from ggufext.llama.settings import ContextSettings, LoadRequest, Override

_LOG_DEBUG, _LOG_ERROR, _LOG_CONTINUED = 1, 4, 5


class _Log:
    """llama.cpp's log, passed on to standard error line by line so that it survives a crash."""

    def __init__(self) -> None:
        self.errors: list[str] = []
        self.passed_on = True
        self._level = _LOG_DEBUG

    def __call__(self, level: int, text: bytes, _: Any) -> None:
        self._level = self._level if level == _LOG_CONTINUED else level
        if self._level == _LOG_DEBUG:
            return
        line = text.decode(errors="replace")
        if self._level == _LOG_ERROR:
            self.errors.append(line.strip())
        if self.passed_on:
            sys.stderr.write(line)
            sys.stderr.flush()


class Llama:
    """The library, started once a process.

    Parameters
    ----------
    path : Path, optional
        The library or a folder that holds it; the installed one when absent.

    Attributes
    ----------
    api : ctypes.CDLL
        libllama with the functions that `ggufext.llama.binding` declares.
    ggml : Ggml
        The ggml that it has loaded.
    place : Place
        Where it lies, of which package.
    release : str
        Of llama.cpp, as ``"0.5.0-dev"``.
    system : str
        Processor features that llama.cpp was built for.

    Raises
    ------
    EngineError
        ``extra_missing``, ``engine_unknown``.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.place = named(path) if path else installed()
        self.api: Any = load(self.place.path)
        self._log = _Log()
        # ctypes does not keep the callback alive; this object does.
        self._log_callback = LogCallback(self._log)
        self.api.llama_log_set(self._log_callback, None)
        self.ggml = Ggml(self.api)
        self.ggml.load_backends(self.place.path.parent)
        self.api.llama_backend_init()
        self.release: str = self.api.llama_version().decode(errors="replace")
        self.system: str = self.api.llama_print_system_info().decode(errors="replace")

    def load(self, request: LoadRequest, *, vocabulary_only: bool = False) -> Any:
        """Load a model.

        Raises
        ------
        EngineError
            ``model_not_loaded`` with llama.cpp's own words.
        """
        parameters = self.api.llama_model_default_params()
        parameters.n_gpu_layers = request.gpu_layers
        parameters.vocab_only = vocabulary_only
        parameters.load_mtp = request.context.ctx_type == MTP_CONTEXT
        # Weights laid out for AMX crash when GCC 12 built llama.cpp; other layouts only help.
        parameters.use_extra_bufts = "AMX_INT8 = 1" not in self.system
        parameters.kv_overrides = self._overrides(request.kv_overrides)
        self.forget_errors()
        model = self.api.llama_model_load_from_file(os.fsencode(request.path), parameters)
        if not model:
            raise EngineError(code="model_not_loaded", message=self.errors())
        return model

    def _overrides(self, overrides: Mapping[str, Override]) -> Any:
        """llama.cpp's array of overrides, ended by an empty key."""
        array = (KvOverride * (len(overrides) + 1))()
        for entry, (key, value) in zip(array, overrides.items(), strict=False):
            entry.key = key.encode()
            entry.tag, member = OVERRIDE_TAGS[type(value)]
            setattr(entry.value, member, value.encode() if isinstance(value, str) else value)
        return array

    def context(
        self, model: Any, settings: ContextSettings, on_node: Callable[..., bool] | None
    ) -> Any:
        """Create a context: llama.cpp's defaults, one thread, and what `settings` names.

        Parameters
        ----------
        on_node : callable or None
            Asked about every node of a graph (``cb_eval``); to be kept alive by the caller.

        Raises
        ------
        EngineError
            ``context_not_created`` with llama.cpp's own words, ``unknown_setting``.
        """
        parameters = self.api.llama_context_default_params()
        parameters.n_threads = parameters.n_threads_batch = 1
        for name, value in asdict(settings).items():
            if value is not None:
                setattr(parameters, name, self._number(name, value))
        if on_node is not None:
            parameters.cb_eval = on_node
        self.forget_errors()
        context = self.api.llama_init_from_model(model, parameters)
        if not context:
            raise EngineError(code="context_not_created", message=self.errors())
        return context

    def node_callback(self, function: Callable[[int, bool, Any], bool]) -> Any:
        """A Python function as `context` takes it for its nodes."""
        return NodeCallback(function)

    def _number(self, setting: str, value: Any) -> Any:
        """Translate a setting to what the C structure holds."""
        if setting == "rope_scaling_type":
            number = SCALING_TYPES.get(value)
        elif setting in {"type_k", "type_v"}:
            number = self.ggml.type_number(value)
        else:
            return value
        if number is None:
            raise EngineError(
                code="unknown_setting", message=f"llama.cpp knows no {setting} {value!r}"
            )
        return number

    @contextmanager
    def silence(self) -> Iterator[None]:
        """Pass nothing of the log on meanwhile."""
        self._log.passed_on = False
        try:
            yield
        finally:
            self._log.passed_on = True

    def forget_errors(self) -> None:
        """Begin what `errors` tells."""
        self._log.errors.clear()

    def errors(self) -> str:
        """What llama.cpp's log complained about since `forget_errors`."""
        return "; ".join(self._log.errors) or "llama.cpp gives no reason"


_MAX_DIMS, _MAX_OP_PARAMS, _MAX_SRC, _MAX_NAME = 4, 16, 10, 64

#: Bytes of ``struct ggml_object``, which `ggml_tensor_overhead` counts beside the tensor.
_OBJECT_BYTES = 32

#: GGML_TYPE_COUNT of llama.cpp 0.5.0; types keep their numbers.
_TYPES = 43

#: An RPC worker that takes longer to answer is taken for absent.
_CONNECT_SECONDS = 10

#: GGML_BACKEND_DEVICE_TYPE_* of ggml-backend.h.
_DEVICE_CPU, _DEVICE_GPU = 0, 1


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
        """A C function by its name and the ctypes types of its result and arguments.

        Raises
        ------
        EngineError
            ``engine_unknown`` where there is none.
        """
        try:
            function = getattr(self._library, name)
        except AttributeError as error:
            raise unknown(self._library._name, f"has no {name}") from error
        function.restype, function.argtypes = result, arguments
        return function

    def op_name(self, tensor: Tensor) -> str:
        """Name of the operation that makes the tensor, as ``"ROPE"``."""
        return _text(self._op_name(tensor.op))

    def type_name(self, number: int) -> str:
        """Name of a tensor type, as ``"q8_0"``."""
        return _text(self._type_name(number))

    def type_number(self, name: str) -> int | None:
        """Number of a tensor type by its name; None where there is none."""
        return next((x for x in range(_TYPES) if self.type_name(x) == name), None)

    def nbytes(self, tensor: Tensor) -> int:
        """Bytes that the tensor occupies."""
        return int(self._nbytes(ctypes.byref(tensor)))

    def load_backends(self, folder: Path) -> None:
        """Load the backends that lie beside a library which has none in it.

        llama.cpp itself would look beside the program, which is Python, and in the folder where
        that was started.

        Raises
        ------
        EngineError
            ``engine_unknown`` where there is none for this processor.
        """
        if self.function("ggml_backend_reg_count", ctypes.c_size_t)() == 0:
            load = self.function("ggml_backend_load_all_from_path", None, ctypes.c_char_p)
            load(os.fsencode(folder))
        find = self.function("ggml_backend_dev_by_type", ctypes.c_void_p, ctypes.c_int)
        if not find(_DEVICE_CPU):
            why = "has no backend for this processor, and none (libggml-cpu-….so) lies beside it"
            raise unknown(self._library._name, why)

    def devices(self) -> tuple[list[str], int]:
        """Descriptions of all devices, and the free bytes of those with a memory of their own."""
        pointer = ctypes.c_void_p
        count = self.function("ggml_backend_dev_count", ctypes.c_size_t)
        get = self.function("ggml_backend_dev_get", pointer, ctypes.c_size_t)
        kind = self.function("ggml_backend_dev_type", ctypes.c_int, pointer)
        describe = self.function("ggml_backend_dev_description", ctypes.c_char_p, pointer)
        size = ctypes.POINTER(ctypes.c_size_t)
        memory = self.function("ggml_backend_dev_memory", None, pointer, size, size)
        free, total, found = ctypes.c_size_t(), ctypes.c_size_t(), 0
        names = []
        for device in map(get, range(count())):
            names.append(_text(describe(device)))
            if kind(device) == _DEVICE_GPU:
                memory(device, ctypes.byref(free), ctypes.byref(total))
                found += free.value
        return names, found

    def add_rpc_server(self, address: str) -> None:
        """Make a remote llama.cpp worker (``host:port``) one of the devices.

        Raises
        ------
        EngineError
            ``no_rpc``, ``engine_unreachable``.
        """
        text, pointer = ctypes.c_char_p, ctypes.c_void_p
        registry = self.function("ggml_backend_reg_by_name", pointer, text)(b"RPC")
        if not registry:
            raise EngineError(
                code="no_rpc",
                message="this llama.cpp was built without RPC; name a build that has it with "
                '--llama-cpp, or compile one with CMAKE_ARGS="-DGGML_RPC=ON" pip install '
                "--force-reinstall --no-cache-dir llama-cpp-python==0.3.36",
            )
        # llama.cpp ends the process when it cannot connect.
        host, _, port = address.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), _CONNECT_SECONDS).close()
        except (OSError, ValueError, OverflowError) as error:
            raise EngineError(
                code="engine_unreachable",
                message=f"no llama.cpp RPC worker answers at {address} ({error}); an address looks "
                "like 192.168.1.7:50052",
            ) from error
        find = self.function("ggml_backend_reg_get_proc_address", pointer, pointer, text)
        function = find(registry, b"ggml_backend_rpc_add_server")
        server = ctypes.CFUNCTYPE(pointer, text)(function)(address.encode())
        register = self.function("ggml_backend_register", None, pointer)
        if not server:
            raise EngineError(
                code="engine_unreachable", message=f"no llama.cpp RPC worker answers at {address}"
            )
        register(server)

    def verify(self, tensor: Tensor) -> None:
        """Compare the layout with the library's own view of a live tensor.

        Raises
        ------
        EngineError
            ``engine_unknown`` when a field lies elsewhere in this build.
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
            raise EngineError(
                code="engine_unknown",
                message=f"struct ggml_tensor is laid out differently here: {wrong}",
            )


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

    Functions and numbers are those of ggml/include/gguf.h in llama-cpp-python 0.3.36.

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


def _text(value: bytes | None) -> str:
    return value.decode() if value is not None else ""
