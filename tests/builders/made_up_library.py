"""Shared libraries that look like a build of llama.cpp as far as a test wants, compiled from C."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from ggufext.llama import binding

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

#: Functions of ggml.h and ggml-backend.h that are looked up when a library is loaded.
_GGML = (
    *("op_name", "op_desc", "type_name", "get_name", "get_data", "nbytes", "nelements"),
    *("tensor_overhead", "backend_reg_count", "backend_load_all_from_path", "backend_dev_by_type"),
    *("backend_dev_count", "backend_dev_get", "backend_dev_type", "backend_dev_description"),
    "backend_dev_memory",
)

_RELEASE = next(iter(binding._CONTEXT_PARAMS))


def build_library(
    path: Path, functions: Mapping[str, str | None] | None = None, flags: Sequence[str] = ()
) -> Path:
    """Compile a library of a known release whose parameters are right and whose functions return 0.

    Parameters
    ----------
    path : Path
        Written anew.
    functions : mapping
        C definitions that take the place of a function, or come on top; None leaves one out.
    flags : sequence of str
        Of the compiler.
    """
    context = binding._CONTEXT_PARAMS[_RELEASE]
    defined = {name: f"void *{name}(void) {{ return 0; }}" for name in binding._FUNCTIONS}
    defined |= {f"ggml_{name}": f"void *ggml_{name}(void) {{ return 0; }}" for name in _GGML}
    defined |= {
        "llama_version": f'const char *llama_version(void) {{ return "{_RELEASE}-dev"; }}',
        "llama_print_system_info": 'const char *llama_print_system_info(void) { return "CPU"; }',
        "ggml_backend_dev_by_type": "int ggml_backend_dev_by_type(int kind) { return 1; }",
        "llama_context_default_params": parameters("context", context, binding._CONTEXT_DEFAULTS),
        "llama_model_default_params": parameters(
            "model", binding._ModelParams, binding._MODEL_DEFAULTS
        ),
        "llama_model_load_from_file": "void *llama_model_load_from_file(void) { return 0; }",
        "llama_init_from_model": "void *llama_init_from_model(void) { return 0; }",
    }
    kept = (text for text in (defined | dict(functions or {})).values() if text is not None)
    return _compile(path, "\n".join(kept), flags)


def build_on_top(path: Path, library: Path, functions: str) -> Path:
    """Compile a library that has its own of some functions, in C, and all others of another one."""
    flags = ("-Wl,--no-as-needed", f"-Wl,-rpath,{library.parent}", str(library))
    return _compile(path, functions, flags)


def _compile(path: Path, text: str, flags: Sequence[str]) -> Path:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler here")
    source = path.with_suffix(".c")
    headers = "".join(f"#include <{name}.h>\n" for name in ("dlfcn", "stdio", "stdlib", "string"))
    source.write_text(f"#define _GNU_SOURCE\n{headers}{text}\n")
    command = [compiler, "-shared", "-fPIC", "-o", str(path), str(source), *flags, "-ldl"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return path


def parameters(
    what: str,
    structure: type[ctypes.Structure] = binding._ModelParams,
    defaults: Mapping[str, float] = binding._MODEL_DEFAULTS,
    *,
    more: int = 0,
) -> str:
    """C of the function that returns default parameters, with so many bytes more."""
    made = structure(**defaults)
    values = ",".join(map(str, bytes(made) + bytes(more)))
    kind = f"{what}_bytes"
    return (
        f"typedef struct {{ unsigned char b[{ctypes.sizeof(made) + more}]; }} {kind};\n"
        f"{kind} llama_{what}_default_params(void) {{ return ({kind}){{{{{values}}}}}; }}"
    )
