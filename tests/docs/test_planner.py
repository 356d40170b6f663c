"""What the site gives the browser plans with Python's standard library alone."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from program import result

pytest.importorskip("mkdocs", reason="needs mkdocs")

import site_hooks

SHIPPED = Path(__file__).parents[2] / "models" / "passkey-Q8_0.gguf"
ASK = """
import planner, sys
print(planner.answer(*sys.argv[1:], lambda: False))
assert not {"click", "rich", "numpy"} & sys.modules.keys()
"""


def test_the_packed_modules_plan_without_any_library(tmp_path: Path) -> None:
    with zipfile.ZipFile(io.BytesIO(site_hooks.archive())) as packed:
        packed.extractall(tmp_path)
    asked = subprocess.run(
        [sys.executable, "-S", "-c", ASK, SHIPPED.name, "1k", "1g"],
        cwd=SHIPPED.parent,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    engines = "hf,vllm,llama.cpp,ollama,koboldcpp,lmstudio"
    expected = result("plan", SHIPPED, "--target", "1k", "--vram", "1g", "--emit", engines)
    found = json.loads(json.loads(asked.stdout)["json"])
    assert [made["freq_base"] for made in found["plans"]] == [
        made["freq_base"] for made in expected["plans"]
    ]
    assert found["plans"][0]["memory"] == expected["plans"][0]["memory"]
    assert len(found["plans"][0]["emit"]) == len(engines.split(","))


def test_the_same_sources_are_packed_into_the_same_bytes() -> None:
    assert site_hooks.archive() == site_hooks.archive()
