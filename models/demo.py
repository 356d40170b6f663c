"""The way through: extend a copy of the shipped model in place, see it reach further, undo.

Run by `make demo`; about half a minute.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
from pathlib import Path

from retrieval import Score, measure, pooled

MODEL = Path(__file__).with_name("passkey-Q8_0.gguf")
LENGTHS = (128, 256, 512, 1024)
TRIALS_PER_DEPTH = 4


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "passkey.gguf"
        copy.write_bytes(MODEL.read_bytes())
        before_sha256 = sha256(copy)

        say("A small model trained on 256 tokens, in a copy that may be changed.")
        run(folder, "inspect", copy.name)
        say("What could be done to reach 1,024 tokens.")
        run(folder, "plan", copy.name, "--target", "1k")
        say("Hidden 5-digit keys that it finds, asked through llama.cpp (24 a length)...")
        before = scores(copy)
        say("Extended in place.")
        run(folder, "rewrite", copy.name, "--target", "1k", "--verify")
        after = scores(copy)
        show_table(before, after)
        say("And back: the same bytes.")
        run(folder, "undo", copy.name)
        after_sha256 = sha256(copy)
        print(f"  before  {before_sha256}\n  after   {after_sha256}")
        if after_sha256 != before_sha256:
            sys.exit("the bytes differ")


def say(sentence: str) -> None:
    print(f"\n── {sentence}", flush=True)


def run(folder: str, *arguments: str) -> None:
    print(f"$ ggufext {' '.join(arguments)}", flush=True)
    subprocess.run([sys.executable, "-m", "ggufext", *arguments], cwd=folder, check=True)


def scores(path: Path) -> list[Score]:
    return pooled(measure(path, lengths=LENGTHS, trials=TRIALS_PER_DEPTH))


def show_table(before: list[Score], after: list[Score]) -> None:
    print(
        f"\n  {'tokens':>6}   {'before':>8} {'95 % interval':>15}   {'after':>8} "
        f"{'95 % interval':>15}"
    )
    for old, new in zip(before, after, strict=True):
        print(f"  {old.length:>6}   {cell(old)}   {cell(new)}")


def cell(score: Score) -> str:
    low, high = score.interval
    return f"{score.hits:>4}/{score.trials:<3} {f'{low:.2f} to {high:.2f}':>15}"


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    main()
