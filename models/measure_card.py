"""Measures the tables of the model card (README.md) and prints them as Markdown.

python models/measure_card.py models/passkey-Q8_0.gguf models/passkey-Q4_0.gguf
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from retrieval import Cell, measure, pooled

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

FREQ_BASE = 500.0
HEAD_DIM = 32
TRAINING_LENGTH = 256
LENGTHS = (64, 128, 256, 320, 384, 512, 1024, 2048)
TARGETS = (512, 1024, 2048)
METHODS = ("linear", "ntk", "gamma", "yarn")
DEPTHS = 6
TRIALS = 10
SEED = 20_000


def extension(method: str, target: int) -> Mapping[str, int | float | str]:
    """Metadata of the shipped model that extends it to a target length by a method.

    Parameters
    ----------
    method : str
        linear, ntk, gamma or yarn.
    target : int
        Target length in tokens, at least the training length.
    """
    factor = target / TRAINING_LENGTH
    bases = {"ntk": FREQ_BASE * factor ** (HEAD_DIM / (HEAD_DIM - 2)), "gamma": FREQ_BASE * factor}
    if method in bases:
        rope: dict[str, int | float | str] = {
            "llama.rope.freq_base": bases[method],
            "llama.rope.scaling.type": "none",
        }
    else:
        rope = {"llama.rope.scaling.type": method, "llama.rope.scaling.factor": factor}
    return {
        "llama.context_length": target,
        "llama.rope.scaling.original_context_length": TRAINING_LENGTH,
        **rope,
    }


def rows(path: Path, *, trials: int, threads: int) -> Iterator[tuple[str, list[Cell]]]:
    """Name and cells of every setting; an extension is measured up to its target."""

    def cells(lengths: list[int], overrides: Mapping[str, int | float | str]) -> list[Cell]:
        return measure(
            path,
            lengths=lengths,
            depths=DEPTHS,
            trials=trials,
            seed=SEED,
            overrides=overrides,
            threads=threads,
        )

    yield "native", cells(list(LENGTHS), {})
    for target in TARGETS:
        for method in METHODS:
            lengths = [length for length in LENGTHS if length <= target]
            yield f"{method} to {target}", cells(lengths, extension(method, target))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", type=Path, nargs="+")
    parser.add_argument("--trials", type=int, default=TRIALS, help="prompts a length and depth")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    for path in arguments.models:
        print(f"\n### {path.name}\n")
        print(f"Hits of {DEPTHS * arguments.trials} prompts, Wilson 95 % interval\n")
        print("| setting | " + " | ".join(str(length) for length in LENGTHS) + " |")
        print("|---" * (len(LENGTHS) + 1) + "|")
        for name, cells in rows(path, trials=arguments.trials, threads=arguments.threads):
            scores = [
                f"{score.hits} ({score.interval[0]:.2f}–{score.interval[1]:.2f})"
                for score in pooled(cells)
            ]
            scores += [""] * (len(LENGTHS) - len(scores))
            print(f"| {name} | " + " | ".join(scores) + " |", flush=True)


if __name__ == "__main__":
    main()
