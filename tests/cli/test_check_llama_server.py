"""``ggufext check --llama-server`` as a program: what it leaves when it is ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from made_up_programs import HANG, ends, write_program
from program import run

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="waits for a process as Linux can")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_ended_audit_leaves_no_server_and_no_copy(
    number: signal.Signals, passkey_copy: Path, tmp_path: Path
) -> None:
    program = write_program(tmp_path, HANG)
    running = subprocess.Popen(
        [
            *(sys.executable, "-m", "ggufext", "check", str(passkey_copy), "--lengths", "512"),
            *("--llama-server", str(program), "--condition", "planned:llama3", "--yes"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while running.poll() is None and not (tmp_path / "pid").exists():
        os.sched_yield()
    running.send_signal(number)
    _, err = running.communicate(timeout=60)
    assert running.returncode not in {0, 2}
    assert "Traceback" not in err
    assert ends(int((tmp_path / "pid").read_text()))
    if number is not signal.SIGKILL:
        assert not list(passkey_copy.parent.glob(".ggufext-*"))


def test_another_program_is_an_error_of_one_line(passkey_model: Path) -> None:
    done = run("check", passkey_model, "--lengths", "256", "--llama-server", "/bin/true")
    assert done.returncode == 1
    assert "not llama.cpp's llama-server" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["./llama-server", "a folder/llama-server"])
def test_a_path_is_taken_from_the_folder_where_one_is(
    name: str, passkey_model: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "a folder"
    folder.mkdir()
    write_program(folder, "echo it was started; exit 7")
    place = folder if name.startswith("./") else tmp_path
    done = run("check", passkey_model, "--lengths", "256", "--llama-server", name, cwd=place)
    assert done.returncode == 1
    assert "it was started" in done.stderr
