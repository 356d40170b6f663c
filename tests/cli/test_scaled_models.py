"""Models that come scaled, as a user meets them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from llama_here import needs_llama_cpp
from program import result, run
from random_model import MetadataValue, write_random_model

if TYPE_CHECKING:
    from pathlib import Path


def linear(path: Path) -> Path:
    keys: dict[str, MetadataValue] = {
        "llama.rope.scaling.type": "linear",
        "llama.rope.scaling.factor": 4.0,
    }
    return write_random_model(path, context=2048, metadata=keys)


def test_a_training_length_that_covers_the_target_raises_one_key(llama: Path) -> None:
    original = llama.read_bytes()
    done = result("rewrite", llama, "--target", "8k", "--train-length", "8k")
    assert [(edit["key"], edit["after"]) for edit in done["edits"]] == [
        ("llama.context_length", 8192)
    ]
    run("undo", llama)
    assert llama.read_bytes() == original
    shown = run("plan", llama, "--target", "8k", "--train-length", "8k").stdout
    assert "the rotation stays, context_length is raised" in shown
    assert "llama.context_length: 2048 → 8192" in shown


def table(shown: str) -> list[list[str]]:
    """Rows of the table of methods, cell by cell."""
    rows = [re.split(" {2,}", line.strip()) for line in shown.splitlines()]
    return [row for row in rows if len(row) == 7 and row[0] != "method"]


def test_every_row_of_a_table_that_keeps_short_contexts_shows_its_own_frequencies(
    llama: Path,
) -> None:
    shown = run("plan", llama, "--target", "8k", "--keep-short").stdout
    assert "factor, or of pairs" in shown
    rows = [row[2] for row in table(shown)]
    assert len(rows) == len(set(rows)) == 5
    assert "1 1.3 1.83 2.59 3.67" in rows
    assert "4 4 4 4 4" in rows


def test_keep_short_says_what_decides(llama: Path) -> None:
    said = " ".join(run("plan", llama, "--target", "8k").stderr.split())
    assert "the size of the context decides, not that of the text" in said


def test_trained_linear_scaling_is_extended_by_the_default_method(tmp_path: Path) -> None:
    path = linear(tmp_path / "model.gguf")
    done = result("rewrite", path, "--target", "8k")
    assert (done["freq_base"]["before"], done["freq_base"]["after"]) == (10000.0, 40000.0)
    assert (done["scaling_type"], done["freq_scale_factor"]) == ("linear", 4.0)
    rows = table(run("plan", path, "--target", "8k").stdout)
    assert [row[0] for row in rows] == ["gamma", "ntk", "linear"]


def test_a_real_header_with_linear_scaling_keeps_its_factor(real_headers: Path) -> None:
    path = real_headers / "ggml-vocab-deepseek-coder.gguf"
    made = result("plan", path, "--target", "64k", "--method", "gamma")
    assert (made["freq_base"]["before"], made["freq_base"]["after"]) == (100000.0, 400000.0)
    assert made["freq_scale_factor"] == 4.0
    assert "llama.rope.scaling.factor" not in [edit["key"] for edit in made["edits"]]


def test_check_runs_a_plan_within_the_training_length_as_the_model_was_trained(
    tmp_path: Path,
) -> None:
    needs_llama_cpp()
    path = linear(tmp_path / "model.gguf")
    lengths = ("--lengths", "1k", "--depths", "1", "--trials", "1")
    shown = run("check", path, *lengths, "--condition", "planned:linear", "--audit", "--yes")
    assert shown.returncode == 0, shown.stderr
