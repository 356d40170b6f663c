"""A comparison of five conditions against five plain prefills of its target, in one run.

The rival is llama-cpp-python's high-level API: it reads as many tokens as the target has, with the
same threads, micro-batch and flash attention, and asks nothing. Prints the ratio, ours over the
rival's, in processor time (whatever else the machine does) and by the clock.

Usage: ``python benchmarks/compare.py [--model FILE] [--target 1024] …``
"""

from __future__ import annotations

import argparse
import resource
import time
from pathlib import Path
from typing import Any

from ggufext.audit.request import LocalSettings
from ggufext.comparison.compare import compare, micro_batch
from ggufext.comparison.request import CompareRequest

MODELS = Path(__file__).parents[1] / "models"


def main() -> None:
    options = parse()
    request = CompareRequest(
        target_length=options.target,
        texts=(options.text,) if options.text else (),
        trials=options.trials,
        depths=options.depths,
        train_length=options.train_length,
        engine=LocalSettings(threads=options.threads),
    )
    before, started = spent(), time.perf_counter()
    result = compare(options.model, request)
    ours, clock = spent() - before, time.perf_counter() - started
    prefills = len(result.conditions) * len(result.texts)
    train_length = result.run.train_length
    assert train_length is not None
    rival = Prefill(
        options.model,
        options.target,
        threads=options.threads,
        n_ubatch=micro_batch(train_length),
        flash_attention=bool(result.run.flash_attention),
    )
    before, started = spent(), time.perf_counter()
    for _ in range(prefills):
        rival.read()
    theirs, their_clock = spent() - before, time.perf_counter() - started
    print(f"{options.model.name}, target {options.target:,}, {options.threads} thread(s)")
    print(
        f"  {prefills} cells {result.run.tokens_evaluated:>10,} tokens {ours:8.1f} s of processor"
    )
    print(
        f"  {prefills} prefills {prefills * options.target:>7,} tokens {theirs:8.1f} s of processor"
    )
    print(f"  ratio {ours / theirs:.2f} in processor time, {clock / their_clock:.2f} by the clock")
    print(f"  {clock:.1f} s in all; {result.recommendation.reason}")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=MODELS / "passkey-Q8_0.gguf")
    parser.add_argument("--target", type=int, default=1024)
    parser.add_argument("--train-length", type=int, help="a smaller one makes a smaller target")
    parser.add_argument("--text", type=Path)
    parser.add_argument("--trials", type=int, default=1)
    parser.add_argument("--depths", type=int, default=4)
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def spent() -> float:
    """Processor seconds of this process and of those that it started and that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


class Prefill:
    """llama-cpp-python's high-level API."""

    def __init__(
        self, model: Path, tokens: int, *, threads: int, n_ubatch: int, flash_attention: bool
    ) -> None:
        from llama_cpp import Llama

        self._llama: Any = Llama(
            str(model),
            n_ctx=tokens,
            n_batch=2048,
            n_ubatch=n_ubatch,
            n_threads=threads,
            n_threads_batch=threads,
            flash_attn=flash_attention,
            verbose=False,
        )
        vocabulary = self._llama.n_vocab()
        self._tokens = [7 * index % vocabulary for index in range(tokens)]

    def read(self) -> None:
        """Read all tokens into an empty context."""
        self._llama.reset()
        self._llama.eval(self._tokens)


if __name__ == "__main__":
    main()
