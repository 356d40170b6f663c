"""Extending a large model: `ggufext rewrite` in place against gguf-new-metadata's copy.

Whole processes, start-up, every fsync and verification included, on random quantized models with
a 128k-token vocabulary, which lie on the disk (nothing sparse, nothing waiting to be written).
gguf-new-metadata cannot set RoPE keys; it copies the file to change a name, which is the work that
setting one would take. `ggufext set` of a key in front of the tokenizer's arrays, and of a chat
template of 20 kB behind them, is compared with `ggufext rewrite` of the same file, in turn. Bytes
are counted from a system call trace where strace is installed.

Prints a table of medians and the ratios between them.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from random_model import write_random_model

GGUFEXT = [sys.executable, "-m", "ggufext"]
GIB = 2**30


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", default="1,4", help="GiB, with commas")
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument(
        "--folder", type=Path, help="where the models go; needs three times the largest size"
    )
    parser.add_argument(
        "--rival-up-to", type=float, default=4, help="GiB; larger models are not copied"
    )
    arguments = parser.parse_args()
    print("| model | first edit | second edit | undo | gguf-new-metadata | ratio to first edit |")
    print("|---|---|---|---|---|---|")
    set_rows = []
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        for size in map(float, arguments.sizes.split(",")):
            path = Path(folder) / "model.gguf"
            write_random_model(
                path,
                "llama",
                type="Q4_0",
                vocabulary=128_256,
                context=8192,
                size=int(size * GIB),
                trailing_metadata={"tokenizer.chat_template": "old"},
            )
            print(row(path, arguments.repetitions, rival=size <= arguments.rival_up_to), flush=True)
            set_rows.append(row_of_set(path, arguments.repetitions))
            if size == float(arguments.sizes.split(",")[0]):
                traced = bytes_written(path)
            path.unlink()
    print("\n| model | rewrite | set a name | ratio | set a chat template | ratio |")
    print("|---|---|---|---|---|---|")
    print("\n".join(set_rows))
    print(f"\nBytes written by a first edit: {traced}")
    print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, "
        f"Python {platform.python_version()}"
    )


def row(path: Path, repetitions: int, *, rival: bool) -> str:
    os.sync()
    times: dict[str, list[float]] = {"first": [], "second": [], "undo": []}
    for _ in range(repetitions):
        times["first"].append(
            seconds(*GGUFEXT, "rewrite", path, "--target", "32k", "--method", "yarn")
        )
        times["second"].append(
            seconds(*GGUFEXT, "rewrite", path, "--target", "64k", "--method", "yarn")
        )
        times["undo"].append(seconds(*GGUFEXT, "undo", path))
    first, second, undone = (statistics.median(times[name]) for name in times)
    spread = f"{min(times['first']):.3f} to {max(times['first']):.3f}"
    copied = copying(path) if rival else None
    return (
        f"| {path.stat().st_size / GIB:.2f} GiB | {first:.3f} s ({spread}) | {second:.3f} s "
        f"| {undone:.3f} s | "
        + (f"{copied:.1f} s | {copied / first:.0f} |" if copied else "not run | – |")
    )


def row_of_set(path: Path, repetitions: int) -> str:
    template = path.with_name("chat.jinja")
    template.write_text("{{ message }}\n" * 1429, encoding="utf-8")
    edits = {
        "rewrite": ("rewrite", path, "--target", "32k", "--method", "yarn"),
        "name": ("set", path, "general.name=another name"),
        "template": ("set", path, f"tokenizer.chat_template=@{template}"),
    }
    times: dict[str, list[float]] = {name: [] for name in edits}
    for _ in range(repetitions):
        for name, edit in edits.items():
            times[name].append(seconds(*GGUFEXT, *edit))
            seconds(*GGUFEXT, "undo", path)
    extended, named, told = (statistics.median(times[name]) for name in edits)
    return (
        f"| {path.stat().st_size / GIB:.2f} GiB | {extended:.3f} s | {named:.3f} s "
        f"| {named / extended:.2f} | {told:.3f} s | {told / extended:.2f} |"
    )


def copying(path: Path) -> float:
    """Seconds of gguf-new-metadata, the better of two runs."""
    copy = path.with_name("copy.gguf")
    program = Path(sys.executable).with_name("gguf-new-metadata")
    times = []
    for _ in range(2):
        times.append(seconds(program, path, copy, "--general-name", "renamed", "--force"))
        copy.unlink()
    return min(times)


def seconds(*command: str | Path) -> float:
    started = time.perf_counter()
    subprocess.run(list(map(str, command)), check=True, capture_output=True)
    return time.perf_counter() - started


def bytes_written(path: Path) -> str:
    """What a first edit writes into each file, from the trace of its system calls."""
    if shutil.which("strace") is None:
        return "strace is not installed: not counted"
    done = subprocess.run(
        ["strace", "-f", "-y", "-e", "trace=write,pwrite64,fallocate", *GGUFEXT, "rewrite",
         str(path), "--target", "32k", "--method", "yarn"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    written: dict[str, int] = {}
    for name, size in re.findall(r"pwrite64\(\d+<([^>]+)>.*\) = (\d+)", done.stderr):
        written[Path(name).name] = written.get(Path(name).name, 0) + int(size)
    inserted = re.findall(r"fallocate\(\d+<[^>]*model.gguf>, FALLOC_FL_INSERT_RANGE, 0, (\d+)",
                          done.stderr)  # fmt: skip
    subprocess.run([*GGUFEXT, "undo", str(path)], check=True, capture_output=True)
    parts = [f"{name} {size:,}" for name, size in written.items()]
    return ", ".join(parts) + f"; range inserted: {', '.join(inserted)} bytes"


if __name__ == "__main__":
    main()
