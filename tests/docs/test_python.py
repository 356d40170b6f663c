"""The examples of the page on Python run, one after the other, on a copy of the shipped model."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from llama_here import needs_llama_cpp

ROOT = Path(__file__).parents[2]
EXAMPLE = re.compile(r"^## (.+?)$|^```python\n(.+?)^```$", re.MULTILINE | re.DOTALL)


def examples() -> list[tuple[str, str]]:
    """Titles and code, in the order of the page."""
    title, found = "", []
    for heading, code in EXAMPLE.findall((ROOT / "docs" / "python.md").read_text(encoding="utf-8")):
        title = heading or title
        if code:
            found.append((title, code))
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("python")
    shutil.copy(ROOT / "models" / "passkey-Q8_0.gguf", made / "model.gguf")
    return made


@pytest.fixture(scope="module")
def names() -> dict[str, object]:
    """What the examples before have left."""
    return {}


@pytest.mark.parametrize(("title", "code"), examples(), ids=[title for title, _ in examples()])
def test_an_example_of_the_page_runs(
    title: str,
    code: str,
    folder: Path,
    names: dict[str, object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if title in {"Check", "Compare", "Tune"}:
        needs_llama_cpp()
    monkeypatch.chdir(folder)
    exec(code, names)
    original = ROOT / "models" / "passkey-Q8_0.gguf"
    changed = (folder / "model.gguf").read_bytes() != original.read_bytes()
    assert changed == (title in {"Rewrite", "Set"})


def test_every_group_has_an_example() -> None:
    assert [title for title, _ in examples()] == [
        "Read", "Plan", "Rewrite", "Set", "Undo", "Check", "Compare", "Tune", "Measure", "Errors",
    ]  # fmt: skip
