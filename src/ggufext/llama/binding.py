"""The shared library of llama.cpp: where it lies, which build it is, how its functions are called.

Described are the structures and functions of llama.h that `ggufext.llama` uses, and no others.
Source: include/llama.h of llama.cpp 0.5.0 (llama-cpp-python 0.3.36). What differs in 0.6.0
(xllamacpp 2026.10.11549) was found by comparing default parameters byte by byte.
"""

from __future__ import annotations

import ctypes
import platform
from ctypes import (
    POINTER,
    c_bool,
    c_char,
    c_char_p,
    c_float,
    c_int,
    c_int8,
    c_int32,
    c_int64,
    c_size_t,
    c_uint8,
    c_uint32,
    c_void_p,
)
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ggufext.errors import EngineError
from ggufext.system import system

if TYPE_CHECKING:
    from collections.abc import Sequence

#: ``ggml_log_callback`` and ``ggml_backend_sched_eval_callback``.
LogCallback = ctypes.CFUNCTYPE(None, c_int, c_char_p, c_void_p)
NodeCallback = ctypes.CFUNCTYPE(c_bool, c_void_p, c_bool, c_void_p)

#: LLAMA_VOCAB_TYPE_NONE.
VOCABULARY_NONE = 0

#: LLAMA_ROPE_SCALING_TYPE_*.
SCALING_TYPES = {"none": 0, "linear": 1, "yarn": 2, "longrope": 3}


class _OverrideValue(ctypes.Union):
    _fields_ = (
        ("val_i64", c_int64),
        ("val_f64", ctypes.c_double),
        ("val_bool", c_bool),
        ("val_str", c_char * 128),
    )


class KvOverride(ctypes.Structure):
    """``struct llama_model_kv_override``."""

    _fields_ = (("tag", c_int), ("key", c_char * 128), ("value", _OverrideValue))


#: LLAMA_KV_OVERRIDE_TYPE_*, and the member that holds such a value.
OVERRIDE_TAGS: dict[type, tuple[int, str]] = {
    int: (0, "val_i64"),
    float: (1, "val_f64"),
    bool: (2, "val_bool"),
    str: (3, "val_str"),
}


class Batch(ctypes.Structure):
    """``struct llama_batch``."""

    _fields_ = (
        ("n_tokens", c_int32),
        ("token", POINTER(c_int32)),
        ("embd", POINTER(c_float)),
        ("pos", POINTER(c_int32)),
        ("n_seq_id", POINTER(c_int32)),
        ("seq_id", POINTER(POINTER(c_int32))),
        ("logits", POINTER(c_int8)),
    )


class _ModelParams(ctypes.Structure):
    """``struct llama_model_params``."""

    _fields_ = (
        ("devices", c_void_p),
        ("tensor_buft_overrides", c_void_p),
        ("n_gpu_layers", c_int32),
        ("split_mode", c_int),
        ("load_mode", c_int),
        ("lazy_mode", c_int),
        ("main_gpu", c_int32),
        ("tensor_split", c_void_p),
        ("progress_callback", c_void_p),
        ("progress_callback_user_data", c_void_p),
        ("kv_overrides", POINTER(KvOverride)),
        ("vocab_only", c_bool),
        ("check_tensors", c_bool),
        ("use_extra_bufts", c_bool),
        ("no_host", c_bool),
        ("no_alloc", c_bool),
        ("load_mtp", c_bool),
    )


def _context_params(callbacks: int) -> type[ctypes.Structure]:
    """``struct llama_context_params`` with so many pointers between its types and its booleans."""
    fields = (
        *((name, c_uint32) for name in ("n_ctx", "n_batch", "n_ubatch", "n_seq_max", "n_rs_seq")),
        *((name, c_uint32) for name in ("n_outputs_max", "n_outputs_max_per_seq")),
        *((name, c_int32) for name in ("n_threads", "n_threads_batch")),
        *((name, c_int) for name in ("ctx_type", "rope_scaling_type", "pooling_type")),
        *((name, c_int) for name in ("attention_type", "flash_attn_type")),
        *((name, c_float) for name in ("rope_freq_base", "rope_freq_scale", "yarn_ext_factor")),
        *((name, c_float) for name in ("yarn_attn_factor", "yarn_beta_fast", "yarn_beta_slow")),
        ("yarn_orig_ctx", c_uint32),
        ("defrag_thold", c_float),
        ("cb_eval", NodeCallback),
        ("cb_eval_user_data", c_void_p),
        ("type_k", c_int),
        ("type_v", c_int),
        ("callbacks", c_void_p * callbacks),
        *((name, c_bool) for name in ("embeddings", "offload_kqv", "no_perf", "op_offload")),
        *((name, c_bool) for name in ("swa_full", "kv_unified")),
        ("samplers", c_void_p),
        ("n_samplers", c_size_t),
        ("ctx_other", c_void_p),
    )
    return type("ContextParams", (ctypes.Structure,), {"_fields_": fields})


#: By the release that ``llama_version`` names: the parameters of a context.
_CONTEXT_PARAMS = {"0.5.0": _context_params(callbacks=2), "0.6.0": _context_params(callbacks=3)}

#: What the default parameters hold in every build that is known; the rest is 0.
_CONTEXT_DEFAULTS: dict[str, float] = {
    "n_ctx": 512,
    "n_batch": 2048,
    "n_ubatch": 512,
    "n_seq_max": 1,
    "n_outputs_max_per_seq": 1,
    "n_threads": 4,
    "n_threads_batch": 4,
    "rope_scaling_type": -1,
    "pooling_type": -1,
    "attention_type": -1,
    "flash_attn_type": -1,
    "yarn_ext_factor": -1,
    "yarn_attn_factor": -1,
    "yarn_beta_fast": -1,
    "yarn_beta_slow": -1,
    "defrag_thold": -1,
    "type_k": 1,
    "type_v": 1,
    "offload_kqv": 1,
    "no_perf": 1,
    "op_offload": 1,
    "swa_full": 1,
}
_MODEL_DEFAULTS: dict[str, float] = {
    "n_gpu_layers": -1,
    "split_mode": 1,
    "load_mode": -1,
    "lazy_mode": 1,
    "use_extra_bufts": 1,
}

#: By their names: what functions return and take. Those of parameters are declared by `load`.
_FUNCTIONS: dict[str, tuple[Any, ...]] = {
    "llama_backend_init": (None,),
    "llama_batch_free": (None, Batch),
    "llama_batch_init": (Batch, c_int32, c_int32, c_int32),
    "llama_decode": (c_int32, c_void_p, Batch),
    "llama_free": (None, c_void_p),
    "llama_get_logits": (POINTER(c_float), c_void_p),
    "llama_get_logits_ith": (POINTER(c_float), c_void_p, c_int32),
    "llama_get_memory": (c_void_p, c_void_p),
    "llama_log_set": (None, LogCallback, c_void_p),
    "llama_memory_can_shift": (c_bool, c_void_p),
    "llama_memory_clear": (None, c_void_p, c_bool),
    "llama_memory_seq_add": (None, c_void_p, c_int32, c_int32, c_int32, c_int32),
    "llama_memory_seq_cp": (None, c_void_p, c_int32, c_int32, c_int32, c_int32),
    "llama_memory_seq_div": (None, c_void_p, c_int32, c_int32, c_int32, c_int),
    "llama_memory_seq_pos_max": (c_int32, c_void_p, c_int32),
    "llama_memory_seq_rm": (c_bool, c_void_p, c_int32, c_int32, c_int32),
    "llama_model_free": (None, c_void_p),
    "llama_model_get_vocab": (c_void_p, c_void_p),
    "llama_model_is_hybrid": (c_bool, c_void_p),
    "llama_model_is_recurrent": (c_bool, c_void_p),
    "llama_model_n_ctx_train": (c_int32, c_void_p),
    "llama_n_batch": (c_uint32, c_void_p),
    "llama_n_ctx": (c_uint32, c_void_p),
    "llama_n_ubatch": (c_uint32, c_void_p),
    "llama_print_system_info": (c_char_p,),
    "llama_set_n_threads": (None, c_void_p, c_int32, c_int32),
    "llama_state_seq_get_data": (c_size_t, c_void_p, POINTER(c_uint8), c_size_t, c_int32),
    "llama_state_seq_get_size": (c_size_t, c_void_p, c_int32),
    "llama_state_seq_set_data": (c_size_t, c_void_p, POINTER(c_uint8), c_size_t, c_int32),
    "llama_supports_gpu_offload": (c_bool,),
    "llama_supports_rpc": (c_bool,),
    "llama_token_to_piece": (c_int32, c_void_p, c_int32, c_char_p, c_int32, c_int32, c_bool),
    "llama_tokenize": (
        *(c_int32, c_void_p, c_char_p, c_int32),
        *(POINTER(c_int32), c_int32, c_bool, c_bool),
    ),
    "llama_version": (c_char_p,),
    "llama_vocab_bos": (c_int32, c_void_p),
    "llama_vocab_eos": (c_int32, c_void_p),
    "llama_vocab_get_add_bos": (c_bool, c_void_p),
    "llama_vocab_is_eog": (c_bool, c_void_p, c_int32),
    "llama_vocab_n_tokens": (c_int32, c_void_p),
    "llama_vocab_type": (c_int, c_void_p),
}

#: Packages that bring llama.cpp, with the version that was tried, their modules and where their
#: libraries lie. The first that is installed in this version is used: llama-cpp-python may have
#: been compiled for a GPU.
_PACKAGES: tuple[tuple[str, str, str, tuple[str, ...]], ...] = (
    (
        "llama-cpp-python",
        "0.3.36",
        "llama_cpp",
        ("lib/libllama.so", "lib/libllama.dylib", "lib/llama.dll", "lib/libllama.dll"),
    ),
    ("xllamacpp", "2026.10.11549", "xllamacpp", ("xllamacpp.abi3.so",)),
)

#: Names of x86-64, as `platform.machine` gives them.
_X86_64 = ("x86_64", "AMD64")

#: What the wheel of xllamacpp for x86-64 is compiled for, without looking at the processor.
_NEEDED = {"xllamacpp": ("avx2", "fma", "f16c", "bmi2")}


#: Names of the library, the likeliest first, and where in the folder of a build, a release or an
#: installation it lies.
_NAMES = (
    *("libllama.so", "libllama.dylib", "llama.dll", "libllama.dll"),
    *("libllama.so.*", "libllama.v*.so"),
)
_FOLDERS = (".", "bin", "lib", "build/bin", "build/bin/Release")


@dataclass(frozen=True, slots=True)
class Place:
    """A library: its file, the package that brought it, and its version; ``""`` without one."""

    path: Path
    package: str = ""
    version: str = ""


def installed() -> Place:
    """The library that is used, found without importing the package that brings it.

    Raises
    ------
    EngineError
        ``extra_missing``, also where the processor lacks what the library is compiled for.
    """
    places = [
        (Place(Path(folder) / file, package, _version(package)), tried)
        for package, tried, module, files in _PACKAGES
        for folder in _folders(module)
        for file in files
        if (Path(folder) / file).exists()
    ]
    if not places:
        raise EngineError(
            code="extra_missing",
            message="no llama.cpp is installed: pip install 'ggufext[check]'",
        )
    place = next((place for place, tried in places if place.version == tried), places[-1][0])
    known = system.processor_features()
    lacking = [name for name in _NEEDED.get(place.package, ()) if known and name not in known]
    if lacking and platform.machine() in _X86_64:
        raise EngineError(
            code="extra_missing",
            message=f"this processor lacks {', '.join(lacking)}, which {place.package} is compiled "
            "for: pip install llama-cpp-python==0.3.36 compiles llama.cpp for this one",
        )
    return place


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # copied there
        return "unknown"


def _folders(module: str) -> Sequence[str]:
    """Where a package lies; empty where it is not installed, or is no package."""
    spec = find_spec(module)
    return (spec.submodule_search_locations if spec else None) or ()


def named(path: Path) -> Place:
    """The library that somebody names: itself, or the folder of a build that holds it.

    Raises
    ------
    EngineError
        ``engine_unknown`` where there is none.
    """
    try:
        if path.is_file():
            return Place(path)
        files = (
            file
            for folder in _FOLDERS
            for name in _NAMES
            for file in sorted((path / folder).glob(name), reverse=True)
        )
        found = next(files, None)
    except OSError as error:
        raise unknown(path, f"cannot be read ({error.strerror})") from error
    if found is None and not path.exists():
        raise unknown(path, "is not there")
    if found is None:
        folders = ", ".join(_FOLDERS[1:])
        raise unknown(path, f"holds no libllama.so, libllama.dylib or llama.dll, nor do {folders}")
    return Place(found)


def load(path: Path) -> Any:
    """Load a library of llama.cpp, see that it is a known build, and declare its functions.

    Parameters
    ----------
    path : Path
        The shared library.

    Returns
    -------
    ctypes.CDLL
        With the functions of llama.h that are used here.

    Raises
    ------
    EngineError
        ``engine_unknown`` when it cannot be loaded, is of another release than those described
        here, lacks a function, or has parameters of another size or other default values.
    """
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        raise unknown(path, f"cannot be loaded ({error})") from error
    for name, (result, *arguments) in _FUNCTIONS.items():
        _declare(library, path, name, result, *arguments)
    said = (library.llama_version() or b"of no version").decode(errors="replace")
    context = _CONTEXT_PARAMS.get(said.removesuffix("-dev"))
    if context is None:
        known = " and ".join(_CONTEXT_PARAMS)
        raise unknown(path, f"is llama.cpp {said}; known is {known}")
    _check(library, path, "llama_context_default_params", context, _CONTEXT_DEFAULTS)
    _check(library, path, "llama_model_default_params", _ModelParams, _MODEL_DEFAULTS)
    _declare(library, path, "llama_model_load_from_file", c_void_p, c_char_p, _ModelParams)
    _declare(library, path, "llama_init_from_model", c_void_p, c_void_p, context)
    return library


def _declare(library: Any, path: Path, name: str, result: Any, *arguments: Any) -> Any:
    try:
        function = getattr(library, name)
    except AttributeError as error:
        raise unknown(path, f"has no {name}") from error
    function.restype, function.argtypes = result, arguments
    return function


#: More bytes than parameters have in any build.
_ROOM = 1024


def _check(
    library: Any,
    path: Path,
    name: str,
    structure: type[ctypes.Structure],
    defaults: dict[str, float],
) -> None:
    """Compare default parameters with their description, and declare the function that makes them.

    Nothing is returned into a structure before its size is known. On x86-64 a function that
    returns a large structure is given its place as the first argument (System V and Microsoft
    calling conventions); elsewhere in a register of its own, and the size is not seen.
    """
    if platform.machine() in _X86_64:
        function = _declare(library, path, name, None, c_void_p)
        buffers = [(c_uint8 * _ROOM)(*[fill] * _ROOM) for fill in (0x00, 0xFF)]
        for buffer in buffers:
            function(buffer)
        # What two calls left as different as it was, they did not write.
        written = max(
            i + 1 for i, pair in enumerate(zip(*buffers, strict=True)) if len({*pair}) == 1
        )
        size = -(-written // ctypes.alignment(structure)) * ctypes.alignment(structure)
        if size != ctypes.sizeof(structure):
            raise unknown(path, f"{name} fills {size} bytes, not {ctypes.sizeof(structure)}")
        made = bytes(buffers[0])
    else:
        whole = type("Room", (ctypes.Structure,), {"_fields_": (("bytes", c_uint8 * _ROOM),)})
        made = bytes(_declare(library, path, name, whole)())
    parameters = structure.from_buffer_copy(made)
    for field, *_ in structure._fields_:
        found = getattr(parameters, field)
        if isinstance(found, int | float) and found != defaults.get(field, 0):
            raise unknown(path, f"{name} gives {field} {found}, not {defaults.get(field, 0)}")
    _declare(library, path, name, structure)


def unknown(path: Path | str, why: str) -> EngineError:
    """A library that this version cannot use, as ``engine_unknown``."""
    return EngineError(
        code="engine_unknown",
        message=f"{path} is no build of llama.cpp known here: {why}; pip install 'ggufext[check]' "
        "brings one",
    )
