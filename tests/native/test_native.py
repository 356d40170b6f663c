"""The native part without Python on this system; `make cross` does the same for others."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BUILD = Path(__file__).with_name("build.py")


@pytest.mark.parametrize("target", ["here", "here-plain"])
def test_headers_and_rotation_hold_without_python(target: str) -> None:
    done = subprocess.run(
        [sys.executable, str(BUILD), target], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    if "left out" in done.stdout:
        pytest.skip(done.stdout.strip())
    assert ", 0 failed" in done.stdout
    assert "kernels: baseline" in done.stdout or target == "here"


def test_a_target_whose_tools_are_absent_is_left_out_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    done = subprocess.run([sys.executable, str(BUILD)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 3
    assert all(line.endswith("left out: cmake is not installed") for line in lines)
