"""``ggufext measure`` as a program."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from llama_here import needs_llama_cpp
from program import result, run

MODEL = Path(__file__).parents[2] / "models" / "passkey-Q8_0.gguf"

needs_llama_cpp()


def test_the_shipped_model_is_measured_with_reports(tmp_path: Path) -> None:
    reports = [tmp_path / name for name in ("a.html", "a.png", "a.json")]
    named = [word for report in reports for word in ("--report", report)]
    done = run("measure", MODEL, "--length", "256", *named)
    assert done.returncode == 0, done.stderr
    assert "Attention of passkey-Q8_0.gguf" in done.stdout
    assert "256 tokens of filler sentences, seed 0; 123 queries" in done.stdout
    assert done.stdout.count("γ observed") >= 2
    assert all(report.stat().st_size > 1000 for report in reports)
    assert all(f"report written to {report}" in done.stderr for report in reports)


def test_json_is_one_object_with_what_was_asked_for() -> None:
    options = ("--condition", "file", "--condition", "planned:yarn", "--target", "1k")
    read = result("measure", MODEL, "--length", "256", "--distance", "64", "--rows", "32", *options)
    assert read["request"]["distance"] == 64
    assert len(read["run"]["rows"]) == 32
    assert [each["name"] for each in read["conditions"]] == ["file", "planned:yarn"]
    gamma = [each["groups"][0]["gamma_pade"] for each in read["conditions"]]
    assert gamma[1] > gamma[0]


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (("--condition", "planned:gamma"), "request_absurd"),
        (("--condition", "self-extend:g=2,w=64"), "bad_condition"),
        (("--distance", "1k"), "request_absurd"),
        (("--rows", "4"), "request_absurd"),
        (("--text", str(MODEL)), "bad_text"),
        (("--report", "report.txt"), "report_path"),
    ],
)
def test_what_cannot_be_measured_is_an_error_with_json(options: tuple[str, ...], code: str) -> None:
    done = run("measure", MODEL, "--length", "256", *options, "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["error"]["code"] == code
    assert "Traceback" not in done.stderr


def test_a_file_that_is_no_model_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "text.gguf").write_text("no model")
    done = run("measure", tmp_path / "text.gguf")
    assert done.returncode == 1
    assert "text.gguf" in done.stderr


def test_a_report_does_not_replace_the_text_that_is_read(tmp_path: Path) -> None:
    text = tmp_path / "text.json"
    text.write_text("The cat sat. " * 200)
    done = run("measure", MODEL, "--text", text, "--report", text)
    assert done.returncode == 1
    assert "the report would replace it" in done.stderr
    assert text.read_text() == "The cat sat. " * 200


def test_ctrl_c_ends_a_run_and_its_llama_cpp_with_status_130() -> None:
    program = [sys.executable, "-c", "from ggufext.cli import main; main()", "measure"]
    running = subprocess.Popen(
        [*program, str(MODEL), "--length", "64k"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert running.stderr is not None
    while not running.stderr.readline().startswith("measuring (file): "):
        assert running.poll() is None
    children = Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split()
    assert children
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=60)
    assert running.returncode == 130, err
    assert out == ""
    assert "interrupted" in err
    assert "Traceback" not in err
    assert not any(Path(f"/proc/{child}").exists() for child in children)
