"""What files of the repository say of the project is what pyproject.toml says."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import ggufext

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
WORKFLOWS = ROOT / ".github" / "workflows"


def text(*names: str) -> str:
    return ROOT.joinpath(*names).read_text(encoding="utf-8")


def pyproject() -> dict[str, Any]:
    return tomllib.loads(text("pyproject.toml"))


def test_the_citation_is_of_this_version() -> None:
    version = pyproject()["project"]["version"]
    assert re.findall(r"^version: (.+)$", text("CITATION.cff"), re.MULTILINE) == [version]
    assert ggufext.__version__ == version


def test_the_oldest_and_the_newest_python_are_tested() -> None:
    made = pyproject()
    oldest = made["project"]["requires-python"].removeprefix(">=")
    newest = made["tool"]["cibuildwheel"]["build"][-1].removeprefix("cp3").removesuffix("t-*")
    assert f'python: ["{oldest}", "3.{newest}"]' in text(".github", "workflows", "test.yml")


def test_workflows_get_no_permission_but_where_a_job_needs_one() -> None:
    for path in WORKFLOWS.iterdir():
        said = path.read_text(encoding="utf-8")
        assert "\npermissions: {}\n" in said, path.name
        jobs = said.partition("\njobs:\n")[2]
        assert len(re.findall(r"^  \w+:$", jobs, re.MULTILINE)) == jobs.count("    permissions:\n")
        assert set(re.findall(r"^ +([a-z-]+): write", jobs, re.MULTILINE)) <= {"id-token", "pages"}


def test_hooks_run_what_make_lint_runs() -> None:
    linted = set(re.findall(r"\$\(BIN\)/(.+)", text("Makefile").partition("\nlint:")[2]))
    for command in re.findall(r"entry: (.+)", text(".pre-commit-config.yaml")):
        assert any(line.startswith(command) for line in linted), command
