"""Files of this project that its pages name are there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "ggufext"
PAGES = [*(ROOT / "docs").glob("*.md"), *ROOT.glob("*.md"), ROOT / "models" / "README.md"]
NAMED = re.compile(r"(?<![\w./-])(\w+)(/[\w./-]*\w\.(?:py|toml|txt|md|cpp|hpp|cu|gguf))\b")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_a_page_names_are_there(page: Path) -> None:
    missing = set()
    for folder, rest in NAMED.findall(page.read_text(encoding="utf-8")):
        for place in (ROOT, PACKAGE):
            if (place / folder).is_dir() and not (place / f"{folder}{rest}").exists():
                missing.add(folder + rest)
    assert missing == set()
