"""The examples of the page on Python run, one after the other, on a copy of the shipped model."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from llama_here import needs_llama_cpp

if TYPE_CHECKING:
    import pytest

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


def test_the_examples_of_the_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # One test: each goes on with what those before have left.
    original = ROOT / "models" / "passkey-Q8_0.gguf"
    model = Path(shutil.copy(original, tmp_path / "model.gguf"))
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for title, code in examples():
        if title == "Check":
            needs_llama_cpp()  # what comes behind goes on with it
        exec(compile(code, f"docs/python.md: {title}", "exec"), names)
        changed = model.read_bytes() != original.read_bytes()
        assert changed == (title in {"Rewrite", "Set"}), title


def test_every_group_has_an_example() -> None:
    assert [title for title, _ in examples()] == [
        "Read", "Plan", "Rewrite", "Set", "Undo", "Check", "Compare", "Tune", "Measure", "Errors",
    ]  # fmt: skip
