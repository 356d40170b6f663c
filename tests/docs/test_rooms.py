"""The drawing of the rooms in CONTRIBUTING.md is what the modules import."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("grimp", reason="needs import-linter: pip install '.[dev]'")

DOCS = Path(__file__).parents[2] / "docs"


def test_the_drawing_of_the_rooms_is_that_of_the_imports() -> None:
    # A process of its own: grimp reads the package that is found first.
    drawn = subprocess.run(
        [sys.executable, "-c", "import write_rooms; print(write_rooms.drawing(), end='')"],
        cwd=DOCS,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert drawn in (DOCS.parent / "CONTRIBUTING.md").read_text(encoding="utf-8"), (
        "run: python docs/write_rooms.py"
    )
