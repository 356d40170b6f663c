"""What this machine, its libraries and a folder allow."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from shutil import disk_usage
from typing import TYPE_CHECKING

from ggufext.arguments import public
from ggufext.errors import EngineError
from ggufext.llama.process import Hello, LlamaProcess
from ggufext.opened.files import FileSystem
from ggufext.opened.strategies import Blocks, blocks_for
from ggufext.system import system
from ggufext.text import binary_size

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["Finding", "doctor"]

#: Instruction sets that matter to llama.cpp or to the rotation kernels, as Linux names them.
_CPU_FLAGS = ("avx2", "fma", "f16c", "avx512f", "avx512bw", "amx_tile", "asimd")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at: what was found, whether it is well, and what to do if not.

    Attributes
    ----------
    value : str
        What was found.
    ok : bool
        Whether that is well.
    hint : str
        What to do if not, or what to know; empty where there is nothing.
    """

    value: str
    ok: bool
    hint: str = ""


@public
def doctor(folder: Path | str, *, llama_cpp: Path | None = None) -> dict[str, Finding]:
    """Look at versions, processor, GPU, llama.cpp and what a folder's file system can do.

    Parameters
    ----------
    folder : Path or str
        Where models lie; tried with a nameless temporary file.
    llama_cpp : Path, optional
        llama.cpp's library, or the folder of a build that holds it; the installed one when absent.

    Returns
    -------
    dict of str to Finding
        By name, in the order in which they are worth reading.
    """
    folder = Path(folder)
    flags = _cpu_flags()
    answer = _ask_llama_cpp(llama_cpp)
    return {
        "ggufext": Finding(version("ggufext"), ok=True),
        "python": Finding(platform.python_version(), ok=True),
        "system": Finding(f"{platform.system()} {platform.release()}", ok=True),
        "cpu": _cpu(flags),
        "memory": _memory(),
        "rotation_kernels": _rotation_kernels(),
        "llama_cpp": _llama_cpp(answer, named=llama_cpp is not None),
        "amx": _amx(flags),
        "rpc": _rpc(answer),
        "gpu": _gpu(),
        "report": _package("resvg-py", "needed for PNG reports: pip install 'ggufext[report]'"),
        "remote": _remote(),
        "folder": _folder(folder),
        "free_space": _free_space(folder),
    }


def _cpu(flags: tuple[str, ...]) -> Finding:
    name = system.processor_name() or platform.machine()
    features = " ".join(flags) or "features not known here"
    return Finding(f"{name}, {system.usable_processors()} cores usable: {features}", ok=True)


def _cpu_flags() -> tuple[str, ...]:
    present = system.processor_features()
    return tuple(flag for flag in _CPU_FLAGS if flag in present)


def _memory() -> Finding:
    memory = system.machine_memory()
    if memory is None:
        return Finding("not known here", ok=True)
    available, total = memory
    return Finding(f"{binary_size(available)} of {binary_size(total)} available", ok=True)


def _rotation_kernels() -> Finding:
    try:
        import ggufext._core
    except ImportError as error:
        return Finding(
            f"none, and headers are read in plain Python: no native module ({error})",
            ok=False,
            hint="needed by ggufext.rope only: install a C++17 compiler and Python's headers "
            "(Debian: g++ python3-dev), then `pip install` with --force-reinstall --no-cache-dir",
        )
    cuda = find_spec("ggufext._cuda") is not None
    return Finding(
        f"{ggufext._core.rope_instruction_set()}, {'with' if cuda else 'without'} CUDA kernels",
        ok=True,
        hint="" if cuda else "CUDA kernels are built when nvcc is found during installation",
    )


def _package(name: str, hint: str) -> Finding:
    try:
        return Finding(f"{name} {version(name)}", ok=True)
    except PackageNotFoundError:
        return Finding(f"{name} is not installed", ok=False, hint=hint)


def _ask_llama_cpp(library: Path | None) -> Hello | EngineError:
    """What llama.cpp says of itself, or why it says nothing."""
    with LlamaProcess(library) as process:
        try:
            return process.hello()
        except EngineError as error:
            return error


def _llama_cpp(answer: Hello | EngineError, *, named: bool) -> Finding:
    if isinstance(answer, EngineError) and named:
        hint = "without --llama-cpp the one that is installed is used"
        return Finding(answer.message, ok=False, hint=hint)
    if isinstance(answer, EngineError):
        if answer.code == "extra_missing":
            hint = "needed by check and by the ROPE nodes of rewrite --verify"
            return Finding(answer.message, ok=False, hint=hint)
        return Finding(
            f"llama.cpp does not run: {answer.message}",
            ok=False,
            hint="pip install --force-reinstall 'ggufext[check]'; where llama-cpp-python 0.3.36 is "
            "installed too, that is used: build it again, or uninstall it",
        )
    offload = "with" if answer.gpu else "without"
    package = f"{answer.package} {answer.version}" if answer.package else "--llama-cpp"
    return Finding(
        f"{package} (llama.cpp {answer.release}, {answer.path}), {offload} GPU offload, "
        f"on {', '.join(answer.devices)}; built for {answer.features}",
        ok=True,
    )


def _remote() -> Finding:
    names = ("fsspec", "aiohttp", "huggingface-hub")
    found = {name: _package(name, "") for name in names}
    missing = [name for name, finding in found.items() if not finding.ok]
    if missing:
        return Finding(
            f"without {', '.join(missing)}",
            ok=True,
            hint="https:// and hf:// names need them: pip install 'ggufext[remote]'",
        )
    return Finding(", ".join(finding.value for finding in found.values()), ok=True)


def _amx(flags: tuple[str, ...]) -> Finding:
    if "amx_tile" not in flags:
        return Finding("this processor has no AMX", ok=True)
    return Finding(
        "this processor has AMX; ggufext loads models without the layouts that crash there",
        ok=True,
        hint="other programs on a llama-cpp-python that GCC 12 built may die with SIGSEGV on "
        'quantized models: reinstall it with CMAKE_ARGS="-DGGML_NATIVE=OFF"',
    )


def _rpc(answer: Hello | EngineError) -> Finding:
    if isinstance(answer, EngineError):
        return Finding("not known without a llama.cpp that runs", ok=True)
    if answer.rpc:
        return Finding("llama.cpp can use RPC workers", ok=True, hint="the link is not secured")
    return Finding(
        "llama.cpp was built without RPC",
        ok=True,
        hint='for --rpc: CMAKE_ARGS="-DGGML_RPC=ON" pip install llama-cpp-python==0.3.36',
    )


def _gpu() -> Finding:
    if find_spec("pynvml") is None:
        return Finding(
            "not looked for", ok=True, hint="pip install nvidia-ml-py shows NVIDIA GPUs here"
        )
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return Finding(f"no NVIDIA GPU ({error})", ok=True)
    try:
        count = pynvml.nvmlDeviceGetCount()
        devices = [_gpu_in_words(pynvml, index) for index in range(count)]
        cuda = pynvml.nvmlSystemGetCudaDriverVersion()
        driver = f"driver {pynvml.nvmlSystemGetDriverVersion()}, CUDA up to {cuda // 1000}."
        driver += str(cuda % 1000 // 10)
    except pynvml.NVMLError as error:
        return Finding(f"the driver does not answer ({error})", ok=False, hint="see nvidia-smi")
    finally:
        pynvml.nvmlShutdown()
    return Finding("; ".join([*devices, driver]) if devices else "no NVIDIA GPU", ok=True)


def _gpu_in_words(nvml: ModuleType, index: int) -> str:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    major, minor = nvml.nvmlDeviceGetCudaComputeCapability(handle)
    name = nvml.nvmlDeviceGetName(handle)
    return (
        f"{name}, compute capability {major}.{minor}, {binary_size(memory.free)} of "
        f"{binary_size(memory.total)} free"
    )


def _folder(folder: Path) -> Finding:
    kind = system.file_system_type(folder) or "unknown file system"
    place = f"{folder} ({kind})"
    if not os.access(folder, os.W_OK | os.X_OK):
        return Finding(
            f"{place} takes no new files",
            ok=False,
            hint="the journal of an edit in place goes there; use --output in another folder",
        )
    possible = _possible(folder)
    shares = possible.share is not None
    if possible.insert is not None:
        shared = ", new files share blocks" if shares else ""
        return Finding(
            f"{place}: edits in place, growing by {possible.insert:,} bytes{shared}", ok=True
        )
    if shares:
        return Finding(f"{place}: new files share the blocks of old ones (reflink)", ok=True)
    return Finding(
        f"{place}: first edits copy the file",
        ok=True,
        hint="on ext4 data stays where it is, on xfs and btrfs files share it",
    )


def _possible(folder: Path) -> Blocks:
    """Inserting and sharing, tried on nameless files."""
    files = FileSystem()
    try:
        probe = files.create_nameless(folder)
    except OSError:  # no file without a name, and no insert either
        return Blocks()
    try:
        files.write(probe, 0, bytes(system.block_size(folder)))
        return blocks_for(files, probe, folder)
    finally:
        files.close(probe)


def _free_space(folder: Path) -> Finding:
    free = disk_usage(folder).free
    return Finding(f"{binary_size(free)} free in {folder}", ok=True)
