"""What README.md and the tutorial show of the shipped model is what the program prints."""

import re
import shutil
from pathlib import Path

import pytest

from program import run

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "models" / "passkey-Q8_0.gguf"
#: Depends on the machine or needs llama.cpp.
NOT_COMPARED = ("  editing ", "  written by ", "  verified: ")
SHOWN = re.compile(
    r"^\$ ggufext (inspect|plan|rewrite) (passkey\.gguf.*)\n((?:(?!```|\$ ).*\n)+)", re.M
)


@pytest.mark.parametrize("page", ["README.md", "docs/tutorial.md"])
def test_a_page_shows_what_the_program_prints(page: str, tmp_path: Path) -> None:
    excerpts = SHOWN.findall((ROOT / page).read_text(encoding="utf-8"))
    assert excerpts
    for command, arguments, shown in excerpts:
        shutil.copy(SHIPPED, tmp_path / "passkey.gguf")
        done = run(command, *arguments.replace("--verify", "").split(), cwd=tmp_path)
        printed = [line.rstrip() for line in done.stdout.splitlines()]
        for line in shown.splitlines():
            assert line.strip() == "…" or line.startswith(NOT_COMPARED) or line.rstrip() in printed
