"""`ggufext inspect` on real-size headers: whole process, time and peak memory.

The rival is gguf-py, which opens the same file in a process of its own. Prints medians over
interleaved repetitions and their ratio.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from random_model import write_random_model

SHARED = Path(os.environ.get("GGUFEXT_SHARED", Path(__file__).parents[2] / "shared"))
REAL = ("ggml-vocab-llama-bpe.gguf", "ggml-vocab-command-r.gguf")
GGUF_PY = "import sys; from gguf import GGUFReader; GGUFReader(sys.argv[1])"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=15)
    repetitions = parser.parse_args().repetitions
    print("| header | ggufext inspect | peak memory | gguf-py opens it | ratio |")
    print("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for path in headers(Path(folder)):
            ours, peak = zip(
                *(measured([sys.executable, "-m", "ggufext", "inspect", str(path)])
                  for _ in range(repetitions)),
                strict=True,
            )  # fmt: skip
            theirs, _ = measured([sys.executable, "-c", GGUF_PY, str(path)])
            median = statistics.median(ours)
            print(f"| {path.name} | {median * 1e3:.0f} ms ({min(ours) * 1e3:.0f} to "
                  f"{max(ours) * 1e3:.0f}) | {max(peak) / 2**20:.0f} MiB | {theirs:.1f} s | "
                  f"{theirs / median:.0f} |", flush=True)  # fmt: skip


def headers(folder: Path) -> list[Path]:
    real = [SHARED / "data" / "vocab" / name for name in REAL]
    if all(path.exists() for path in real):
        return real
    return [write_random_model(folder / "made-up-128k.gguf", "llama", vocabulary=128_256)]


def measured(command: list[str]) -> tuple[float, int]:
    """Seconds and peak resident bytes of one process."""
    started = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        sys.exit(f"{command} failed")
    return time.perf_counter() - started, usage.ru_maxrss * 1024


if __name__ == "__main__":
    main()
