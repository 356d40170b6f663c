"""Measures the tables of the model card (README.md) and prints them as Markdown.

python models/measure_card.py models/passkey-Q8_0.gguf models/passkey-Q4_0.gguf
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import passkey_task as task
from retrieval import measure, pooled

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

FREQ_BASE = 500.0
HEAD_DIM = 32
TRAINING_LENGTH = 256
LENGTHS = (64, 128, 192, 256, 320, 384, 512, 1024, 2048)
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


def settings() -> Iterator[tuple[str, int, Mapping[str, int | float | str]]]:
    """Name of every setting, the longest length it is measured at, and its metadata."""
    yield "native", LENGTHS[-1], {}
    for target in TARGETS:
        for method in METHODS:
            yield f"{method} to {target}", target, extension(method, target)


def print_table(path: Path, *, keys: int | None, trials: int, threads: int) -> None:
    """Print the accuracies of a model, one row a setting, one column a length."""
    shortest = task.shortest_length(keys=keys)
    lengths = [length for length in LENGTHS if length >= shortest]
    mode = "standard mode" if keys is None else f"sweep mode, {keys} keys"
    print(f"\n### {path.name}, {mode}\n")
    print("| setting | " + " | ".join(str(length) for length in lengths) + " |")
    print("|---" * (len(lengths) + 1) + "|")
    for name, longest, overrides in settings():
        cells = measure(
            path,
            lengths=[length for length in lengths if length <= longest],
            depths=DEPTHS,
            trials=trials,
            keys=keys,
            seed=SEED,
            overrides=overrides,
            threads=threads,
        )
        scores = [
            f"{score.hits}/{score.trials} ({score.interval[0]:.2f}–{score.interval[1]:.2f})"
            for score in pooled(cells)
        ]
        scores += [""] * (len(lengths) - len(scores))
        print(f"| {name} | " + " | ".join(scores) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", type=Path, nargs="+")
    parser.add_argument("--trials", type=int, default=TRIALS, help="prompts a length and depth")
    parser.add_argument("--keys", type=int, help="labelled keys of sweep mode (default: standard)")
    parser.add_argument("--threads", type=int, default=1, help="change last bits of the scores")
    arguments = parser.parse_args()
    for path in arguments.models:
        print_table(path, keys=arguments.keys, trials=arguments.trials, threads=arguments.threads)


if __name__ == "__main__":
    main()
