"""Reading a header: ggufext against llama.cpp's gguf_init_from_file.

Every repetition is the first read of a fresh process, as in a command that reads a header once:
a process that reads again and again would compare how C and Python keep freed memory. The start
of the process and its imports are not timed; the file is in the page cache.

Prints a table of medians over interleaved repetitions and the ratios between them. Needs
ggufext[check]; uses the vocabulary headers in ../shared/data/vocab where they are, and a
made-up vocabulary of the same size otherwise.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ggufext.header import header, pure
from ggufext.header.header import read_header
from ggufext.llama.binding import installed

ROOT = Path(__file__).parents[1]
SHARED = Path(os.environ.get("GGUFEXT_SHARED", ROOT.parent / "shared"))
REAL = ["ggml-vocab-llama-bpe.gguf", "ggml-vocab-command-r.gguf"]


class InitParams(ctypes.Structure):
    """gguf_init_params of ggml/include/gguf.h."""

    _fields_ = (("no_alloc", ctypes.c_bool), ("ctx", ctypes.c_void_p))


def read_with_llama_cpp(path: Path) -> float:
    """Seconds that gguf_init_from_file takes."""
    ggml = ctypes.CDLL(str(installed().path))
    ggml.gguf_init_from_file.restype = ctypes.c_void_p
    ggml.gguf_init_from_file.argtypes = [ctypes.c_char_p, InitParams]

    start = time.perf_counter()
    context = ggml.gguf_init_from_file(str(path).encode(), InitParams(True, None))
    seconds = time.perf_counter() - start
    if context is None:
        sys.exit(f"llama.cpp refuses {path}")
    ggml.gguf_free.argtypes = [ctypes.c_void_p]
    ggml.gguf_free(context)
    return seconds


def read_index(path: Path) -> float:
    """Seconds that `read_header` takes."""
    start = time.perf_counter()
    read_header(path)
    return time.perf_counter() - start


def read_index_in_python(path: Path) -> float:
    """Seconds that `read_header` takes where the native module is absent."""
    vars(header)["reader"] = pure
    return read_index(path)


def read_everything(path: Path) -> float:
    """Seconds that `read_header` and all values as Python objects take."""
    start = time.perf_counter()
    found = read_header(path)
    values = [found.value(key) for key in found.keys]
    seconds = time.perf_counter() - start
    del values
    return seconds


def made_up_vocabulary(folder: Path) -> Path:
    """Write a header with 128,000 tokens and 280,000 merges, as llama-bpe has."""
    from gguf_bytes import INT32, U32, Array, gguf_bytes

    source = random.Random(1)
    letters = "abcdefghijklmnopqrstuvwxyzĠé"
    words = ["".join(source.choices(letters, k=source.randint(1, 12))) for _ in range(128_000)]
    merges = [f"{source.choice(words)} {source.choice(words)}" for _ in range(280_000)]
    keys = {
        "general.architecture": "llama",
        "llama.context_length": U32(8192),
        "tokenizer.ggml.tokens": words,
        "tokenizer.ggml.token_type": Array(INT32, [1] * len(words)),
        "tokenizer.ggml.merges": merges,
    }
    path = folder / "made-up-128k.gguf"
    path.write_bytes(gguf_bytes(keys))
    return path


READERS = {
    "llama.cpp": read_with_llama_cpp,
    "index": read_index,
    "python": read_index_in_python,
    "everything": read_everything,
}


def seconds_in_fresh_process(reader: str, path: Path) -> float:
    command = [sys.executable, __file__, "--time", reader, str(path)]
    child = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return float(child.stdout)


def median_seconds(path: Path, repeats: int) -> dict[str, float]:
    """Median of each reader; they take turns, so that a busy machine slows them alike."""
    seconds: dict[str, list[float]] = {reader: [] for reader in READERS}
    for _ in range(repeats):
        for reader, taken in seconds.items():
            taken.append(seconds_in_fresh_process(reader, path))
    return {reader: statistics.median(taken) for reader, taken in seconds.items()}


def print_table(paths: list[Path], repeats: int) -> None:
    print("| header | llama.cpp | index | ratio | in plain Python | ratio | all values | ratio |")
    print("|---|---|---|---|---|---|---|---|")
    for path in paths:
        medians = median_seconds(path, repeats)
        rival, *ours = (medians[reader] for reader in READERS)
        cells = [f"{seconds * 1e3:.1f} ms | {rival / seconds:.1f}×" for seconds in ours]
        print(f"| {path.stem} | {rival * 1e3:.1f} ms | {' | '.join(cells)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=25)
    parser.add_argument("--time", nargs=2, metavar=("READER", "PATH"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.time:
        reader, path = options.time
        print(READERS[reader](Path(path)))
        return
    with tempfile.TemporaryDirectory() as folder:
        real = [SHARED / "data" / "vocab" / name for name in REAL]
        paths = [path for path in real if path.exists()] or [made_up_vocabulary(Path(folder))]
        print_table(paths, options.repeats)


if __name__ == "__main__":
    main()
