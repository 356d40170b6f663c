"""`ggufext measure` against a plain prefill of the same tokens, in one run.

Both without flash attention, with the same micro-batch and threads, each loading the model anew; a
prefill with flash attention is timed beside them. Prints seconds and ratios.

Usage: ``python benchmarks/measure.py MODEL [--lengths 2048,4096] [--threads 1] [--rounds 2]``
"""

from __future__ import annotations

import argparse
import statistics
from dataclasses import replace
from pathlib import Path
from random import Random

from ggufext.attention.measure import measure
from ggufext.attention.request import MeasureRequest
from ggufext.audit.engines.llama_cpp import LlamaCpp
from ggufext.audit.task import wording
from ggufext.llama.settings import ContextSettings, LoadRequest
from tables import interleave, ratio

MICRO_BATCH = 512


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--lengths", default="2048,4096")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    print(f"{options.model.name}, {options.threads} thread(s), {options.rounds} round(s)")
    for length in map(int, options.lengths.split(",")):
        times = timed(options.model, length, options.threads, options.rounds)
        for name, seconds in times.items():
            print(f"  {length:,} tokens, {name}: {statistics.median(seconds):.1f} s")
        print(f"  {ratio(times, 'measure', 'prefill'):.2f} times the plain prefill")


def timed(model: Path, length: int, threads: int, rounds: int) -> dict[str, list[float]]:
    context = ContextSettings(
        n_ctx=length,
        n_ubatch=MICRO_BATCH,
        n_threads=threads,
        n_threads_batch=threads,
        flash_attn_type=0,
    )

    def prefill(flash_attention: int) -> None:
        load = LoadRequest(path=model, context=replace(context, flash_attn_type=flash_attention))
        engine = LlamaCpp(model)
        parts: list[str] = []
        random = Random(0)
        while sum(engine.counts(parts)) < length - 1 - MICRO_BATCH // 8:
            parts.append(wording.sentence(random))
        engine.open(load)
        engine.score(parts, rows=[], distributions=[])
        engine.close()

    return interleave(
        {
            "measure": lambda: measure(model, MeasureRequest(length=length, threads=threads)),
            "prefill": lambda: prefill(0),
            "prefill with flash attention": lambda: prefill(1),
        },
        rounds=rounds,
        warm_up=0,
    )


if __name__ == "__main__":
    main()
