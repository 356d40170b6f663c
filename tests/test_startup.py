"""Start-up is a feature: what the command line does not load before it needs it."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = {
    "numpy", "rich", "gguf", "llama_cpp", "resvg_py", "jinja2", "ctypes.util", "asyncio",
    "fsspec", "aiohttp", "huggingface_hub", "concurrent.futures", "urllib3", "urllib.request",
}  # fmt: skip


def modules_after(statement: str) -> set[str]:
    program = f"import sys; {statement}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "statement",
    [
        "import ggufext",
        "import ggufext; ggufext.plan, ggufext.rewrite, ggufext.read_header",
        "import ggufext.cli",
        "import ggufext.cli.inspect, ggufext.cli.plan, ggufext.cli.edits",
        "import ggufext.cli.diff, ggufext.cli.doctor, ggufext.locating.places",
        "import ggufext.header.facts, ggufext.planning.plan, ggufext.editing.rewrite",
    ],
)
def test_heavy_libraries_are_not_loaded_at_start(statement: str) -> None:
    assert not modules_after(statement) & HEAVY


def test_importing_the_package_loads_none_of_its_stages() -> None:
    loaded = {name for name in modules_after("import ggufext") if name.startswith("ggufext")}
    assert loaded == {"ggufext"}


@pytest.mark.parametrize(
    "statement",
    [
        "import ggufext; ggufext.rewrite, ggufext.plan, ggufext.inspect, ggufext.emit",
        "import ggufext.cli.edits, ggufext.cli.plan, ggufext.cli.inspect",
    ],
)
def test_editing_loads_nothing_of_the_audit(statement: str) -> None:
    loaded = modules_after(statement)
    assert not [name for name in loaded if name.startswith("ggufext.audit")]


def test_rewriting_loads_nothing_that_only_other_commands_or_names_need() -> None:
    loaded = modules_after("import ggufext.cli.edits")
    assert not loaded & {
        "ggufext.opened.inspection",
        "ggufext.header.hf_config",
        "ggufext.header.lint",
        "ggufext.locating.ollama",
        "ggufext.locating.remote",
        "ggufext.planning.emit",
    }
