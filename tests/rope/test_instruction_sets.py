"""The same specification holds in every instruction set this processor has."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ggufext import _core

HERE = Path(__file__).parent
ORDER = ["baseline", "avx2", "avx512"]


def chosen(isa: str) -> str:
    """Instruction set of a process that starts with GGUFEXT_ISA set."""
    program = "from ggufext import _core; print(_core.rope_instruction_set())"
    result = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"GGUFEXT_ISA": isa},
        capture_output=True,
        text=True,
        check=True,
    )
    return result.stdout.strip()


@pytest.mark.parametrize("isa", ["baseline", "avx2"])
def test_a_lower_instruction_set_meets_the_same_specification(isa: str) -> None:
    if isa not in ORDER[: ORDER.index(_core.rope_instruction_set())]:
        pytest.skip(f"{isa} is not below this process's {_core.rope_instruction_set()}")
    assert chosen(isa) == isa
    # The fixtures above this folder need packages that rotation does not.
    options = [f"--confcutdir={HERE}"]
    files = [str(HERE / f"test_{name}.py") for name in ("accuracy", "rotate")]
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options, *files],
        env=os.environ | {"GGUFEXT_ISA": isa},
        cwd=HERE.parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout[-4000:]


def test_the_variable_never_raises_the_instruction_set() -> None:
    assert chosen("avx512") == chosen("")
    assert chosen("no such set") == chosen("")
