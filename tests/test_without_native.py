"""Without the native module every command says and writes the same; only the rotation is gone."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from editing.disk import PowerFailure, StoppingDisk
from ggufext.editing.rewrite import rewrite
from ggufext.opened import journal
from ggufext.planning.request import PlanRequest
from made_up_servers import completion, serving
from program import run

if TYPE_CHECKING:
    from collections.abc import Callable

    Run = Callable[..., subprocess.CompletedProcess[str]]

#: Loaded by every Python at its start, so that child processes are without it too.
BLOCK = "import sys; sys.modules['ggufext._core'] = sys.modules['ggufext._cuda'] = None\n"


@pytest.fixture
def without(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a process in which the native modules cannot be imported."""
    folder = tmp_path_factory.mktemp("without")
    (folder / "sitecustomize.py").write_text(BLOCK)
    path = os.pathsep.join([str(folder), *sys.path])
    return {**os.environ, "PYTHONPATH": path}


def plain_copy(path: Path) -> Path:
    """The same model in a folder of its own, for the run without the native module."""
    folder = path.parent / "plain"
    folder.mkdir()
    return Path(shutil.copy(path, folder / path.name))


def without_time(path: Path) -> bytes:
    """Bytes of a model but for the second in which it was rewritten."""
    return re.sub(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", b"", path.read_bytes())


@pytest.mark.parametrize(
    "command",
    [
        ("inspect",),
        ("inspect", "--layers", "--json"),
        ("plan", "--target", "32k", "--json"),
        ("plan", "--target", "32k", "--method", "yarn", "--emit", "llama-server"),
        ("rewrite", "--target", "32k", "--dry-run"),
        ("diff", __file__),  # no model: the same error
        ("recover", "--json"),
        ("undo",),  # nothing to undo: the same error
    ],
    ids=" ".join,
)
def test_a_command_says_the_same(
    command: tuple[str, ...], llama: Path, without: dict[str, str]
) -> None:
    name, *options = command
    expected = run(name, llama, *options)
    found = run(name, llama, *options, env=without)
    assert (found.returncode, found.stdout, found.stderr) == (
        expected.returncode,
        expected.stdout,
        expected.stderr,
    )


@pytest.mark.parametrize("method", ["gamma", "llama3"])
def test_a_rewrite_writes_the_same_file_and_undo_gives_the_old_one_back(
    method: str, llama: Path, without: dict[str, str]
) -> None:
    plain, original = plain_copy(llama), llama.read_bytes()
    options = ("--target", "32k", "--method", method)
    assert run("rewrite", llama, *options).returncode == 0
    done = run("rewrite", plain, *options, env=without)
    assert done.returncode == 0, done.stderr
    assert without_time(plain) == without_time(llama)
    assert run("undo", plain, env=without).returncode == 0
    assert plain.read_bytes() == original


def test_an_interrupted_edit_is_recovered(
    llama: Path, inserting: int, without: dict[str, str]
) -> None:
    original, stop = llama.read_bytes(), 0
    while not journal.path_for(llama).exists():
        stop += 1
        with pytest.raises(PowerFailure):
            rewrite(llama, PlanRequest(target_length=8192), files=StoppingDisk(stop))
    done = run("recover", llama, env=without)
    assert done.returncode == 0, done.stderr
    assert llama.read_bytes() == original
    assert not journal.path_for(llama).exists()


def test_a_broken_file_is_refused_in_the_same_words(llama: Path, without: dict[str, str]) -> None:
    with llama.open("r+b") as file:
        file.seek(4)
        file.write(b"\x09")
    expected = run("inspect", llama)
    assert expected.returncode == 1
    assert run("inspect", llama, env=without).stderr == expected.stderr


def test_a_server_is_audited(without: dict[str, str]) -> None:
    small = ("--lengths", "1000", "--depths", "2", "--trials", "1", "--json")
    with serving(completion()) as url:
        done = run("check", "--server", url, *small, env=without)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["run"]["stop"] is None


def test_doctor_says_what_is_missing_and_what_needs_it(
    tmp_path: Path, without: dict[str, str]
) -> None:
    done = run("doctor", tmp_path, "--json", env=without)
    finding: dict[str, Any] = json.loads(done.stdout)["rotation_kernels"]
    assert finding["ok"] is False
    assert "no native module" in finding["value"]
    assert "ggufext.rope" in finding["hint"]


def test_rotation_is_refused_by_name_and_its_reference_runs(without: dict[str, str]) -> None:
    program = """
import numpy as np
from ggufext.errors import NativeError
from ggufext.rope import reference, rotate
x, positions, inv_freq = np.ones((2, 1, 4), np.float32), np.arange(2), [1.0, 0.1]
print(reference.rotate(x, positions, inv_freq=inv_freq).shape)
try:
    rotate(x, positions, inv_freq=inv_freq)
except NativeError as error:
    print(error.code, error)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], env=without, capture_output=True, text=True, check=True
    )
    shape, refusal = done.stdout.splitlines()
    assert shape == "(2, 1, 4)"
    assert refusal.startswith("not_built rotating needs the native module")
    assert "C++17 compiler" in refusal
