"""``ggufext check`` as a program: real runs of the shipped model, whole and cut off."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from llama_here import needs_llama_cpp

MODEL = Path(__file__).parents[2] / "models" / "passkey-Q8_0.gguf"


@pytest.fixture
def program() -> list[str]:
    needs_llama_cpp()
    return [sys.executable, "-c", "from ggufext.cli import main; main()", "check"]


def test_the_shipped_model_loses_keys_beyond_training_and_a_plan_brings_them_back(
    program: list[str],
) -> None:
    done = subprocess.run(
        [
            *(*program, str(MODEL), "--lengths", "256,768", "--depths", "5", "--trials", "4"),
            *("--condition", "file", "--condition", "planned:gamma", "--json"),
        ],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    read = json.loads(done.stdout)
    before, after = ({x["length"]: x["interval"] for x in c["lengths"]} for c in read["conditions"])
    assert before[256][0] > 0.8
    assert before[768][1] < after[768][0]
    assert read["comparisons"][0]["p"] < 0.05
    assert read["conditions"][0]["effective_length"] == 256


def test_a_file_that_is_no_model_is_an_error_with_json(program: list[str], tmp_path: Path) -> None:
    nothing = tmp_path / "nothing.gguf"
    nothing.write_bytes(b"not a model")
    done = subprocess.run(
        [*program, str(nothing), "--lengths", "256", "--json"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert json.loads(done.stdout)["error"]["code"]


def begun(program: list[str], kept: Path) -> subprocess.Popen[str]:
    """A long run that has answered a few questions."""
    running = subprocess.Popen(
        [*program, str(MODEL), "--lengths", "256,1k", "--trials", "500", "--resume", str(kept)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while running.poll() is None and not (kept.exists() and kept.stat().st_size > 1000):
        os.sched_yield()
    return running


def test_ctrl_c_ends_a_real_run_with_its_report_and_status_130(
    program: list[str], tmp_path: Path
) -> None:
    kept = tmp_path / "run.jsonl"
    running = begun(program, kept)
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=60)
    assert running.returncode == 130, err
    assert "cut short" in out
    assert "interrupted" in err


def test_a_killed_engine_ends_a_real_run_with_its_report_and_status_1(
    program: list[str], tmp_path: Path
) -> None:
    running = begun(program, tmp_path / "run.jsonl")
    children = Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split()
    for child in children:
        os.kill(int(child), signal.SIGKILL)
    out, err = running.communicate(timeout=60)
    assert running.returncode == 1, err
    assert "cut short" in out
    assert "error" in err


def test_a_run_that_was_cut_off_goes_on_where_it_stopped(
    program: list[str], tmp_path: Path
) -> None:
    kept = tmp_path / "run.jsonl"
    arguments = [str(MODEL), "--lengths", "256", "--depths", "3", "--trials", "2", "--json"]

    def result() -> dict[str, object]:
        done = subprocess.run(
            [*program, *arguments, "--resume", str(kept)],
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        read = json.loads(done.stdout)
        assert isinstance(read, dict)
        return read

    whole = result()
    lines = kept.read_text().splitlines(keepends=True)
    kept.write_text("".join(lines[:4]))
    again = result()
    assert len(kept.read_text().splitlines()) == len(lines)
    assert again["conditions"] == whole["conditions"]
