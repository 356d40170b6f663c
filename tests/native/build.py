"""Compile the native part without Python for this system and for others, and run its tests.

``python tests/native/build.py [TARGET …]``: all targets that are named, in build/native; a target
whose tools are absent is left out with the reason. Programs for Windows run under Wine.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

REPOSITORY = Path(__file__).resolve().parents[2]
FOLDER = REPOSITORY / "build" / "native"
MODEL = REPOSITORY / "models" / "passkey-Q4_0.gguf"

_MINGW = ("x86_64-w64-mingw32-g++-posix", "x86_64-w64-mingw32-g++")
_WINE = ("wine64", "wine", "/usr/lib/wine/wine64")

#: Upper limits of what the rotation may use; a processor that has less uses less.
_INSTRUCTION_SETS = ("avx512", "avx2", "baseline")


class Target(NamedTuple):
    """A system and a compiler for it.

    Attributes
    ----------
    system, processor : str
        As CMake calls them; ``""``: those of this machine.
    zig : str
        Name that `zig c++` has for it; ``""``: MinGW, or the compiler of this machine.
    plain : bool
        Rotation as compilers without vector extensions get it.
    """

    system: str = ""
    processor: str = ""
    zig: str = ""
    plain: bool = False


TARGETS = {
    "here": Target(),
    "here-plain": Target(plain=True),
    "windows-mingw": Target("Windows", "x86_64"),
    "macos-arm64": Target("Darwin", "arm64", zig="aarch64-macos"),
    "macos-x86_64": Target("Darwin", "x86_64", zig="x86_64-macos"),
}


def _first(names: tuple[str, ...]) -> str | None:
    return next((found for name in names if (found := shutil.which(name))), None)


def compiler(name: str) -> tuple[list[str], str]:
    """CMake's settings for the compiler of a target, and why there is none."""
    target, folder = TARGETS[name], FOLDER / name
    if shutil.which("cmake") is None:
        return [], "cmake is not installed"
    if not target.system:
        return [], "" if _first(("c++", "g++", "clang++")) else "there is no C++ compiler"
    settings = [
        f"-DCMAKE_SYSTEM_NAME={target.system}",
        f"-DCMAKE_SYSTEM_PROCESSOR={target.processor}",
    ]
    if not target.zig:
        found = _first(_MINGW)
        return [*settings, f"-DCMAKE_CXX_COMPILER={found}"], "" if found else f"no {_MINGW[0]}"
    if find_spec("ziglang") is None:
        return [], "the Python package ziglang is not installed"
    # CMake wants one program for each tool.
    folder.mkdir(parents=True, exist_ok=True)
    for tool, said in (("c++", f"c++ -target {target.zig}"), ("ar", "ar"), ("ranlib", "ranlib")):
        program = folder / f"zig-{tool}"
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m ziglang {said} "$@"\n')
        program.chmod(0o755)
    tools = {"CXX_COMPILER": "c++", "AR": "ar", "RANLIB": "ranlib"}
    return [*settings, *(f"-DCMAKE_{key}={folder}/zig-{tool}" for key, tool in tools.items())], ""


def build(name: str, settings: list[str]) -> Path:
    """Compile a target; its program."""
    target, folder = TARGETS[name], FOLDER / name
    configure = [
        *("cmake", "-S", str(Path(__file__).parent), "-B", str(folder)),
        *(
            "-DCMAKE_BUILD_TYPE=Release",
            f"-DGGUFEXT_PLAIN_KERNEL={'ON' if target.plain else 'OFF'}",
        ),
        *settings,
    ]
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    for command in (configure, ["cmake", "--build", str(folder), "--parallel", str(processors)]):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            sys.exit(f"{name}: {' '.join(command)}\n{done.stdout}{done.stderr}")
        if ": warning: " in done.stderr:
            sys.exit(f"{name}: the compiler warns\n{done.stderr}")
    return folder / f"native_tests{'.exe' if target.system == 'Windows' else ''}"


def run(name: str, program: Path) -> str:
    """Run a target's tests where that is possible; what came of it."""
    command = [str(program), str(MODEL)]
    if TARGETS[name].system == "Darwin":
        return "compiled and linked, not run: that needs macOS"
    if TARGETS[name].system == "Windows":
        wine = _first(_WINE)
        if wine is None:
            return "compiled and linked, not run: Wine is not installed"
        command = [wine, str(program), f"Z:{MODEL}"]
    said = []
    for instruction_set in _INSTRUCTION_SETS:
        environment = {
            **os.environ,
            "GGUFEXT_ISA": instruction_set,
            "WINEDEBUG": "-all",
            "WINEPREFIX": str(FOLDER / "wine"),
            "WINEDLLOVERRIDES": "mscoree,mshtml=",
        }
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            cwd=program.parent,
            env=environment,
            timeout=300,  # Wine may wait for ever where it lacks something
        )
        if done.returncode != 0:
            sys.exit(f"{name}: {' '.join(command)}\n{done.stdout}{done.stderr}")
        said += [", ".join(done.stdout.splitlines()[-2:])]
    return "; ".join(dict.fromkeys(said))


def main() -> None:
    """Build and run the targets of the command line, or all for other systems."""
    names = sys.argv[1:] or [name for name, target in TARGETS.items() if target.system]
    for name in names:
        settings, obstacle = compiler(name)
        said = f"left out: {obstacle}" if obstacle else run(name, build(name, settings))
        print(f"{name}: {said}", flush=True)


if __name__ == "__main__":
    main()
