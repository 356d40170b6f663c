"""On a free-threaded Python the native modules leave the global interpreter lock off."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import sysconfig

import pytest

PROGRAM = """
import sys
before = sys._is_gil_enabled()
import {module}
print(before, sys._is_gil_enabled())
"""


@pytest.mark.skipif(
    not sysconfig.get_config_var("Py_GIL_DISABLED"), reason="this Python is not free-threaded"
)
@pytest.mark.parametrize("module", ["ggufext._core", "ggufext._cuda", "ggufext.rope"])
def test_loading_a_native_module_leaves_the_lock_off(module: str) -> None:
    if importlib.util.find_spec(module) is None:
        pytest.skip("built without CUDA: no nvcc was found")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHON_GIL"}
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM.format(module=module)],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.split() == ["False", "False"]
