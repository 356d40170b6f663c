"""Two libraries of llama.cpp on one model: tokens a second of a prompt and of an answer.

    python benchmarks/engines.py MODEL LIBRARY OTHER [--rounds 3] [--prompt 512] [--answer 64]

Every round is a fresh process for each library, in turn, on one thread. Seconds are the
processor's, so that what else runs on the machine counts little; printed are medians, and the
ratio of OTHER to LIBRARY within each round.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from ggufext.llama.library import Llama
from ggufext.llama.loaded import Model
from ggufext.llama.settings import ContextSettings, LoadRequest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("libraries", type=Path, nargs="+", metavar="LIBRARY")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--prompt", type=int, default=512, help="tokens")
    parser.add_argument("--answer", type=int, default=64, help="tokens")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measured(options)))
        return
    runs: dict[Path, list[dict[str, str | float]]] = {path: [] for path in options.libraries}
    for _ in range(options.rounds):
        for path, done in runs.items():
            done.append(in_a_fresh_process(path, options))
    first = runs[options.libraries[0]]
    for path, done in runs.items():
        print(f"{path}\n  {done[0]['system']}")
        for what in ("prompt", "answer"):
            speeds = [float(run[what]) for run in done]
            ratios = [a / float(b[what]) for a, b in zip(speeds, first, strict=True)]
            print(
                f"  {what}: {statistics.median(speeds):.1f} tokens/s ({min(speeds):.1f} to "
                f"{max(speeds):.1f}), ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to "
                f"{max(ratios):.2f})"
            )


def in_a_fresh_process(path: Path, options: argparse.Namespace) -> dict[str, str | float]:
    sizes = ["--prompt", str(options.prompt), "--answer", str(options.answer)]
    command = [sys.executable, __file__, str(options.model), str(path), "--measure", *sizes]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    run: dict[str, str | float] = json.loads(said)
    return run


def measured(options: argparse.Namespace) -> dict[str, str | float]:
    llama = Llama(options.libraries[0])
    context = ContextSettings(n_ctx=options.prompt + options.answer)
    model = Model(llama, LoadRequest(path=options.model, context=context))
    model.open(context)
    tokens = (7 * np.arange(options.prompt) % model.n_vocab).astype(np.int32)
    model.decode(tokens[:32], 0)  # weights come from the disk
    model.clear()
    started = time.process_time()
    logits = model.decode(tokens, 0)
    read = time.process_time()
    for position in range(options.prompt, options.prompt + options.answer):
        logits = model.decode(np.array([np.argmax(logits)], np.int32), position)
    ended = time.process_time()
    return {
        "system": llama.system,
        "prompt": options.prompt / (read - started),
        "answer": options.answer / (ended - read),
    }


if __name__ == "__main__":
    main()
