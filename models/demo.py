"""The way through: extend a copy of the shipped model in place, see it reach further, undo.

Run by `make demo`; under a minute.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
from pathlib import Path

MODEL = Path(__file__).with_name("passkey-Q8_0.gguf")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "passkey.gguf"
        copy.write_bytes(MODEL.read_bytes())
        before_sha256 = sha256(copy)

        say("A small model trained on 256 tokens, in a copy that may be changed.")
        run(folder, "inspect", copy.name)
        say("What could be done to reach 1,024 tokens.")
        run(folder, "plan", copy.name, "--target", "1k")
        say("Extended in place.")
        run(folder, "rewrite", copy.name, "--target", "1k", "--verify")
        say("What it finds now (file) and found before (native), asked through llama.cpp.")
        run(
            folder,
            "check",
            copy.name,
            "--lengths",
            "256,512,1k",
            "--trials",
            "3",
            "--condition",
            "native",
            "--condition",
            "file",
        )
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


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    main()
