"""`ggufext inspect` on real-size headers: whole process, time and peak memory.

First single files; the rival is gguf-py, which opens the same file in a process of its own. Then a
folder of 200 models with vocabularies of 128k tokens and sparse weights; the rivals are
llama.cpp's gguf_init_from_file on all of them in one process, and gguf-py on one of them. Prints
medians over interleaved repetitions.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from header import read_with_llama_cpp
from random_model import random_vocabulary, write_random_model

ROOT = Path(__file__).parents[1]
SHARED = Path(os.environ.get("GGUFEXT_SHARED", ROOT.parent / "shared"))
REAL = ("ggml-vocab-llama-bpe.gguf", "ggml-vocab-command-r.gguf")
GGUF_PY = "import sys; from gguf import GGUFReader; GGUFReader(sys.argv[1])"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=15)
    parser.add_argument("--models", type=int, default=200, help="in the folder")
    parser.add_argument("--llama-cpp", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--write", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.write:
        write_models(Path(options.write[0]), int(options.write[1]))
        return
    if options.llama_cpp:
        for path in sorted(options.llama_cpp.iterdir()):
            read_with_llama_cpp(path)
        return
    print_files(options.repetitions)
    print_folder(options.models, options.repetitions)


def print_files(repetitions: int) -> None:
    print("| header | ggufext inspect | peak memory | gguf-py opens it | ratio |")
    print("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for path in headers(Path(folder)):
            command = [sys.executable, "-m", "ggufext", "inspect", str(path)]
            runs = [measured(command) for _ in range(repetitions)]
            ours = [run.seconds for run in runs]
            theirs = measured([sys.executable, "-c", GGUF_PY, str(path)]).seconds
            median = statistics.median(ours)
            print(f"| {path.name} | {median * 1e3:.0f} ms ({min(ours) * 1e3:.0f} to "
                  f"{max(ours) * 1e3:.0f}) | {max(run.peak for run in runs) / 2**20:.0f} MiB | "
                  f"{theirs:.1f} s | {theirs / median:.0f} |", flush=True)  # fmt: skip


def print_folder(models: int, repetitions: int) -> None:
    """Print the table of a folder; every model has 128k tokens, 291 tensors, 4 GB of holes."""
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as name:
        folder = Path(name)
        # By a process of its own: the peak memory of a child counts that of its parent.
        subprocess.run([sys.executable, __file__, "--write", folder, str(models)], check=True)
        runs: dict[str, list[Run]] = {"ggufext": [], "llama.cpp": []}
        for _ in range(repetitions):
            ours = [sys.executable, "-m", "ggufext", "inspect", name]
            runs["ggufext"].append(measured(ours))
            runs["llama.cpp"].append(measured([sys.executable, __file__, "--llama-cpp", name]))
        one = measured([sys.executable, "-c", GGUF_PY, str(next(folder.iterdir()))])
        runs["gguf-py, one of them"] = [one]
    print(
        "\n| models | read by | seconds | of the processor | peak memory |\n|---|---|---|---|---|"
    )
    for reader, all_runs in runs.items():
        seconds = [run.seconds for run in all_runs]
        processor = statistics.median(run.processor for run in all_runs)
        print(f"| {models} | {reader} | {statistics.median(seconds):.2f} ({min(seconds):.2f} to "
              f"{max(seconds):.2f}) | {processor:.2f} | "
              f"{max(run.peak for run in all_runs) / 2**20:.0f} MiB |")  # fmt: skip


def write_models(folder: Path, models: int) -> None:
    content, size = header_with_weights()
    for number in range(models):
        path = folder / f"model-{number:03d}.gguf"
        path.write_bytes(content)
        os.truncate(path, size)


def header_with_weights() -> tuple[bytes, int]:
    """A header as of a Llama 3 8B in Q4_0, and the bytes of the whole file."""
    from gguf_bytes import INT32, STRING, U32, Array, Tensor, header_bytes

    words = random_vocabulary(128_256, seed=1)
    keys = {
        "general.architecture": "llama",
        "general.name": "made up",
        "llama.context_length": U32(8192),
        "llama.block_count": U32(32),
        "llama.embedding_length": U32(4096),
        "llama.attention.head_count": U32(32),
        "llama.attention.head_count_kv": U32(8),
        "tokenizer.ggml.tokens": Array(STRING, words.tokens),
        "tokenizer.ggml.token_type": Array(INT32, words.types),
        "tokenizer.ggml.merges": Array(STRING, words.merges),
    }
    shapes = {
        "attn_q": (4096, 4096), "attn_k": (4096, 1024), "attn_v": (4096, 1024),
        "attn_output": (4096, 4096), "ffn_gate": (4096, 14336), "ffn_up": (4096, 14336),
        "ffn_down": (14336, 4096),
    }  # fmt: skip
    tensors = [Tensor("token_embd.weight", (4096, 128_256), "Q4_0")]
    for layer in range(32):
        tensors += [Tensor(f"blk.{layer}.{name}.weight", shape, "Q4_0")
                    for name, shape in shapes.items()]  # fmt: skip
        tensors += [Tensor(f"blk.{layer}.{name}_norm.weight", (4096,)) for name in ("attn", "ffn")]
    tensors += [Tensor("output_norm.weight", (4096,)),
                Tensor("output.weight", (4096, 128_256), "Q6_K")]  # fmt: skip
    header = header_bytes(keys, tensors)
    header += bytes(-len(header) % 32)
    return header, len(header) + sum(-(-tensor.size // 32) * 32 for tensor in tensors)


def headers(folder: Path) -> list[Path]:
    real = [SHARED / "data" / "vocab" / name for name in REAL]
    if all(path.exists() for path in real):
        return real
    return [write_random_model(folder / "made-up-128k.gguf", "llama", vocabulary=128_256)]


@dataclass(frozen=True)
class Run:
    """Seconds, seconds of the processor and peak resident bytes of one process."""

    seconds: float
    processor: float
    peak: int


def measured(command: list[str]) -> Run:
    """Run a process; its times say less than those of the processor on a busy machine."""
    started = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        sys.exit(f"{command} failed")
    seconds = time.perf_counter() - started
    return Run(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)


if __name__ == "__main__":
    main()
