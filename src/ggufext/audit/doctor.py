"""What this machine, its libraries and a folder allow, for ``ggufext doctor``."""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from ggufext.editing.files import FileSystem
from ggufext.editing.strategies import file_system_type, insert_block

#: Instruction sets that matter to llama.cpp or to the rotation kernels, as Linux names them.
_CPU_FLAGS = ("avx2", "fma", "f16c", "avx512f", "avx512bw", "amx_tile", "asimd")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at: what was found, whether it is well, and what to do if not."""

    value: str
    ok: bool
    hint: str = ""


def examine(folder: Path) -> dict[str, Finding]:
    """Look at versions, processor, GPU, llama.cpp and what a folder's file system can do.

    Parameters
    ----------
    folder : Path
        Where models lie; tried with a nameless temporary file.

    Returns
    -------
    dict of str to Finding
        By name, in the order in which they are worth reading.
    """
    flags = _cpu_flags()
    return {
        "ggufext": Finding(version("ggufext"), ok=True),
        "python": Finding(platform.python_version(), ok=True),
        "system": Finding(f"{platform.system()} {platform.release()}", ok=True),
        "cpu": Finding(" ".join(flags) or "features not known here", ok=True),
        "rotation_kernels": _rotation_kernels(),
        "llama_cpp": _llama_cpp(),
        "amx": _amx(flags),
        "rpc": _rpc(),
        "gpu": _gpu(),
        "report": _package("matplotlib", "needed for PNG reports: pip install 'ggufext[report]'"),
        "folder": _folder(folder),
    }


def _cpu_flags() -> tuple[str, ...]:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ()
    lines = (line for line in text.splitlines() if line.startswith(("flags", "Features")))
    present = set(next(lines, "").partition(":")[2].split())
    return tuple(flag for flag in _CPU_FLAGS if flag in present)


def _rotation_kernels() -> Finding:
    from ggufext import _core

    cuda = find_spec("ggufext._cuda") is not None
    return Finding(
        f"{_core.rope_instruction_set()}, {'with' if cuda else 'without'} CUDA kernels",
        ok=True,
        hint="" if cuda else "CUDA kernels are built when nvcc is found during installation",
    )


def _package(name: str, hint: str) -> Finding:
    try:
        return Finding(f"{name} {version(name)}", ok=True)
    except PackageNotFoundError:
        return Finding(f"{name} is not installed", ok=False, hint=hint)


def _llama_cpp() -> Finding:
    return _package(
        "llama-cpp-python",
        "needed by check and rewrite --verify: pip install 'ggufext[check]' (compiles llama.cpp)",
    )


def _amx(flags: tuple[str, ...]) -> Finding:
    if "amx_tile" not in flags:
        return Finding("this processor has no AMX", ok=True)
    return Finding(
        "this processor has AMX; ggufext loads models without the buffers that crash there",
        ok=True,
        hint="other programs on the same llama.cpp may die with SIGSEGV on quantized models when "
        'GCC 12 built it: reinstall it with CMAKE_ARGS="-DGGML_NATIVE=OFF"',
    )


def _rpc() -> Finding:
    if find_spec("llama_cpp") is None:
        return Finding("not known without llama-cpp-python", ok=True)
    import llama_cpp

    if llama_cpp.llama_supports_rpc():
        return Finding("llama.cpp can use RPC workers", ok=True, hint="the link is not secured")
    return Finding(
        "llama.cpp was built without RPC",
        ok=True,
        hint='for --rpc, reinstall llama-cpp-python with CMAKE_ARGS="-DGGML_RPC=ON"',
    )


def _gpu() -> Finding:
    if find_spec("pynvml") is None:
        return Finding(
            "not looked for", ok=True, hint="pip install nvidia-ml-py shows NVIDIA GPUs here"
        )
    import pynvml

    try:
        pynvml.nvmlInit()
        devices = []
        for index in range(pynvml.nvmlDeviceGetCount()):
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
            name = pynvml.nvmlDeviceGetName(handle)
            devices.append(
                f"{name}, {memory.free / 2**30:.1f} of {memory.total / 2**30:.1f} GiB free"
            )
    except pynvml.NVMLError as error:
        return Finding(f"no NVIDIA GPU ({error})", ok=True)
    return Finding("; ".join(devices) or "no NVIDIA GPU", ok=True)


def _folder(folder: Path) -> Finding:
    kind = file_system_type(folder) or "unknown file system"
    place = f"{folder} ({kind})"
    if not os.access(folder, os.W_OK | os.X_OK):
        return Finding(
            f"{place} takes no new files",
            ok=False,
            hint="the journal of an edit in place goes there; use --output in another folder",
        )
    block = insert_block(FileSystem(), folder) if sys.platform.startswith("linux") else None
    if block is None:
        return Finding(
            f"{place}: first edits copy the file",
            ok=True,
            hint="ext4 and xfs can be edited in place",
        )
    return Finding(f"{place}: edits in place, growing by {block:,} bytes", ok=True)
