"""The passkey audit against the loop that one would write without it, in one run.

The rival is llama-cpp-python's high-level API with the same prompts and threads, in random order
and in the order that its own prefix match likes best. Its time is measured on a random sample of
cells per length (random order) and on whole texts (best order), and scaled to all cells; tokens
are counted in full. Prints ratios, rival over ours.

Usage: ``python benchmarks/check.py [--model FILE] [--large] [--lengths 512,1024 …]``; --large needs
tests/builders in PYTHONPATH.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from ggufext.audit.check import measure_model
from ggufext.audit.engines.llama_cpp import LlamaCpp
from ggufext.audit.request import CheckRequest, LocalSettings, Mode, depth_bins
from ggufext.audit.task import PromptPlan
from ggufext.audit.task.passkey import Passkey
from ggufext.header.header import read_header
from ggufext.llama.memory import micro_batch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ggufext.audit.run.measure import Measured
    from ggufext.audit.task import Question

MODELS = Path(__file__).parents[1] / "models"

RESAMPLES = 1000


@dataclass(frozen=True)
class Rival:
    """Seconds that the loop takes for all questions: estimate and 95 % interval."""

    seconds: float
    low: float
    high: float


def main() -> None:
    options = parse()
    with tempfile.TemporaryDirectory() as folder:
        model = large_model(Path(folder)) if options.large else options.model
        print(f"{model.name}, {model.stat().st_size / 1e6:,.1f} MB, {options.threads} thread(s)")
        for mode in [Mode(options.mode)] if options.mode else Mode:
            compare(model, mode, options)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=MODELS / "passkey-Q8_0.gguf")
    parser.add_argument("--large", action="store_true", help="a random llama of 1 GB in Q4_0")
    parser.add_argument("--mode", choices=[mode.value for mode in Mode], help="default: both")
    parser.add_argument("--lengths", default="512,1024,2048,4096")
    parser.add_argument("--depths", type=int, default=10)
    parser.add_argument("--texts", type=int, default=5)
    parser.add_argument(
        "--sample", type=int, default=3, help="cells of a length timed for the loop"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def large_model(folder: Path) -> Path:
    """A random llama with the shipped model's vocabulary: others make many tokens of a word."""
    from gguf import GGUFValueType

    from random_model import Typed, write_random_model

    header = read_header(MODELS / "passkey-Q8_0.gguf")
    tokens = header.value("tokenizer.ggml.tokens")
    assert isinstance(tokens, tuple)
    types = header.value("tokenizer.ggml.token_type")
    plain = ("tokens", "merges", "bos_token_id", "eos_token_id", "add_bos_token")
    return write_random_model(
        folder / "random-1GB.gguf",
        type="Q4_0",
        size=1_050_000_000,
        vocabulary=len(tokens),
        context=8192,
        metadata={
            **{f"tokenizer.ggml.{key}": header.value(f"tokenizer.ggml.{key}") for key in plain},
            "tokenizer.ggml.token_type": Typed(types, GGUFValueType.ARRAY, GGUFValueType.INT32),
        },
    )


def compare(model: Path, mode: Mode, options: argparse.Namespace) -> None:
    lengths = tuple(int(length) for length in options.lengths.split(","))
    request = CheckRequest(
        lengths=lengths,
        depths=options.depths,
        trials=options.texts,
        mode=mode,
        seed=options.seed,
        engine=LocalSettings(threads=options.threads),
    )
    questions, building = build(model, lengths, request)
    run = measure_model(model, request)
    ours = run.run
    cells = f"{len(lengths)} lengths × {options.depths} depths × {options.texts} texts"
    print(f"\n{mode.value}: {cells}, up to {lengths[-1]:,} tokens")
    print(f"  ours                {ours.seconds:8.1f} s  {ours.tokens_evaluated:>10,} tokens")
    report_tokens(run, mode)
    print(f"  prompt building     {building:8.2f} s  {building / ours.seconds:.2%} of our time")
    loop = Loop(model, lengths[-1], options.threads)
    rng = Random(options.seed)
    rivals = {
        f"random order ({options.sample} cells a length)": loop.in_random_order(
            questions, rng, options.sample
        ),
        "best order (2 whole texts)": loop.in_best_order(questions, rng),
    }
    for order, rival in rivals.items():
        ratio, low, high = (t / ours.seconds for t in (rival.seconds, rival.low, rival.high))
        print(f"  loop, {order}: {rival.seconds:.1f} s, ", end="")
        print(f"{ratio:.1f} times ours [{low:.1f}, {high:.1f}]")


def report_tokens(run: Measured, mode: Mode) -> None:
    ours, request = run.run, run.request
    saved = ours.tokens_naive / ours.tokens_evaluated
    print(f"  one prompt a trial  {ours.tokens_naive:>22,} tokens, {saved:.2f} times ours")
    if mode is Mode.SWEEP:
        longest = max(request.lengths or ())
        bound = request.trials * longest + 40 * len(run.trials)
        share = ours.tokens_evaluated / bound
        print(f"  texts × longest + 40 × questions {bound:>9,} tokens, ours is {share:.2f} of it")


def build(
    model: Path, lengths: tuple[int, ...], request: CheckRequest
) -> tuple[tuple[Question, ...], float]:
    """Prompts as `ggufext check` makes them, and the seconds that it takes."""
    engine, task = LlamaCpp(model), Passkey()
    plan = PromptPlan(
        mode=request.mode,
        lengths=lengths,
        depths=depth_bins(request.depths),
        texts=request.trials,
        seed=request.seed,
        answer_tokens=task.answer_tokens(engine.counts),
        lead=1,
        trail=0,
        chat=False,
        split=micro_batch(lengths[0]),
    )
    started = time.perf_counter()
    questions = task.questions(plan, engine.counts)
    seconds = time.perf_counter() - started
    engine.close()
    return questions, seconds


class Loop:
    """llama-cpp-python's high-level API, one completion a question."""

    def __init__(self, model: Path, longest: int, threads: int) -> None:
        from llama_cpp import Llama

        self._llama: Any = Llama(
            str(model),
            n_ctx=longest + 64,
            n_threads=threads,
            n_threads_batch=threads,
            verbose=False,
        )

    def in_random_order(self, questions: Sequence[Question], rng: Random, sample: int) -> Rival:
        """A random sample of every length, in random order."""
        by_length = defaultdict(list)
        for question in questions:
            by_length[question.length].append(question)
        chosen = [each for cells in by_length.values() for each in rng.sample(cells, sample)]
        rng.shuffle(chosen)
        times = defaultdict(list)
        for question in chosen:
            times[question.length].append(self._seconds(question))

        def total(pick: bool) -> float:
            return sum(
                len(by_length[length])
                * statistics.fmean(rng.choices(seconds, k=len(seconds)) if pick else seconds)
                for length, seconds in times.items()
            )

        totals = sorted(total(pick=True) for _ in range(RESAMPLES))
        return Rival(total(pick=False), totals[RESAMPLES // 40], totals[-RESAMPLES // 40])

    def in_best_order(self, questions: Sequence[Question], rng: Random) -> Rival:
        """Whole texts in the order in which each prompt shares most with the one before."""
        texts = sorted({question.text for question in questions})
        each = []
        for text in rng.sample(texts, min(2, len(texts))):
            self._llama.reset()
            each.append(sum(self._seconds(q) for q in questions if q.text == text))
        return Rival(
            statistics.fmean(each) * len(texts), *(f(each) * len(texts) for f in (min, max))
        )

    def _seconds(self, question: Question) -> float:
        started = time.perf_counter()
        self._llama.create_completion("".join(question.parts), max_tokens=6, temperature=0.0)
        return time.perf_counter() - started


if __name__ == "__main__":
    main()
