"""`ggufext compare` against llama.cpp's own llama-perplexity: the same order, and the time of it.

The rival is the program that people measure scalings with: under every condition it reads a text in
stretches of the target and tells the mean loss over the second half of each. It gets the flags that
`ggufext plan --emit llama.cpp` prints. Prints both losses by condition, the rank correlation of the
two, and seconds of the processor a cell and a stretch, in which `compare` asks for keys too.

Usage: ``python benchmarks/perplexity.py PROGRAM MODEL TEXT --target 2048 [--texts 4]``
"""

from __future__ import annotations

import argparse
import math
import operator
import re
import shlex
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from scipy.stats import spearmanr

import ggufext
from compare import spent

if TYPE_CHECKING:
    from ggufext.comparison.results import ComparedCondition

#: Its log is written by a thread of its own, and now and then the end of it is lost.
TRIALS = 10
NATIVE = "native"
CONDITIONS = (NATIVE, *(f"planned:{name}" for name in ("linear", "ntk", "gamma", "yarn")))


def main() -> None:
    options = parse()
    result, ours = compared(options)
    mine = {each.name: second_half(each, options.target) for each in result.conditions}
    before = spent()
    theirs = {name: perplexity(options, name) for name in CONDITIONS}
    stretch = (spent() - before) / len(CONDITIONS) / options.texts
    print(f"{options.model.name}, {options.texts} texts of {options.target:,} tokens, 1 thread")
    print(f"{'condition':<16} {'compare':>9} {'llama-perplexity':>17}   nats a token")
    for name in CONDITIONS:
        print(f"{name:<16} {mine[name]:>9.3f} {theirs[name]:>17.3f}")
    rank = spearmanr([mine[name] for name in CONDITIONS], [theirs[name] for name in CONDITIONS])
    print(f"rank correlation {rank.statistic:.2f}; {result.recommendation.reason}")
    print(f"{ours:.2f} s of processor a cell, {stretch:.2f} a stretch: ratio {ours / stretch:.2f}")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program", type=Path, help="llama-perplexity")
    parser.add_argument("model", type=Path)
    parser.add_argument("text", type=Path, help="of twice the target's tokens at least")
    parser.add_argument("--target", type=int, required=True)
    parser.add_argument("--train-length", type=int, help="a smaller one makes a smaller target")
    parser.add_argument("--texts", type=int, default=4)
    return parser.parse_args()


def compared(options: argparse.Namespace) -> tuple[ggufext.CompareResult, float]:
    """Our result, and seconds of the processor a cell."""
    request = ggufext.CompareRequest(
        target_length=options.target,
        conditions=CONDITIONS,
        texts=(options.text,),
        trials=options.texts,
        train_length=options.train_length,
        engine=ggufext.LocalSettings(threads=1),
    )
    before = spent()
    result = ggufext.compare(options.model, request)
    return result, (spent() - before) / len(CONDITIONS) / len(result.texts)


def second_half(condition: ComparedCondition, target: int) -> float:
    """Mean loss where llama-perplexity scores; of a bin across the middle its share counts."""
    widths = [max(each.end - max(each.start, target // 2), 0) for each in condition.losses]
    losses = [each.loss.mean for each in condition.losses]
    return float(sum(map(operator.mul, widths, losses)) / sum(widths))


def perplexity(options: argparse.Namespace, name: str) -> float:
    """Mean loss over the second halves of the stretches, nats a token."""
    flags: list[str] = []
    if name != NATIVE:
        request = ggufext.PlanRequest(
            target_length=options.target,
            train_length=options.train_length,
            method=ggufext.Method(name.removeprefix("planned:")),
        )
        made = ggufext.plan(options.model, request)
        block = ggufext.emit(options.model, made, ggufext.Engine.LLAMA_CPP).blocks[0]
        # Behind the program, the file and the size of the context.
        flags = shlex.split(block.text)[5:]
    command = [
        *(options.program, "-m", options.model, "-f", options.text),
        *("-c", str(options.target), "--chunks", str(options.texts), "-t", "1", *flags),
    ]
    for _ in range(TRIALS):
        told = subprocess.run(command, capture_output=True, text=True, check=True)
        last = rf"(?:\[{options.texts}\]|Final estimate: PPL = )([\d.]+)"
        found = re.search(last, told.stdout + told.stderr)
        if found is not None:
            return math.log(float(found[1]))
    raise SystemExit(f"{options.program} told no perplexity of the last text")


if __name__ == "__main__":
    main()
