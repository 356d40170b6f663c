"""What a model was trained with, on the command line: earlier extensions, lengths, documents."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from program import result, run
from random_model import write_random_model

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def qwen3(tmp_path: Path) -> Path:
    names = {"general.basename": "Qwen3"}
    return write_random_model(tmp_path / "q.gguf", "qwen3", context=40960, metadata=names)


def copied(path: Path) -> Path:
    copy = path.with_name("copy.gguf")
    command = [sys.executable, "-m", "gguf.scripts.gguf_new_metadata", str(path), str(copy)]
    subprocess.run([*command, "--general-name", "X"], check=True, capture_output=True)
    return copy


def test_a_copy_of_an_extended_file_is_planned_from_its_original(tmp_path: Path) -> None:
    base = {"llama.rope.freq_base": 500.0}
    path = write_random_model(tmp_path / "m.gguf", "llama", context=256, metadata=base)
    result("rewrite", path, "--target", "512")
    copy = copied(path)
    made = result("plan", copy, "--target", "1k", "--method", "yarn")
    assert (made["train_length"]["value"], made["factor"]) == (256, 4.0)
    assert (made["freq_base"]["before"], made["freq_base"]["after"]) == (500.0, 500.0)
    assert made["earlier_extension"] == {
        "train_length": 256,
        "target_length": 512,
        "method": "gamma",
        "freq_base_known": True,
    }
    told = run("plan", copy, "--target", "1k", "--method", "yarn")
    assert "the file was extended before, to 512 tokens by gamma" in told.stderr
    assert "from 256 to 512 tokens by gamma" in run("inspect", copy).stdout


def test_the_base_of_the_training_is_asked_for_and_taken(tmp_path: Path) -> None:
    base = {"llama.rope.freq_base": 500.0}
    path = write_random_model(tmp_path / "m.gguf", "llama", context=256, metadata=base)
    result("rewrite", path, "--target", "512", "--no-history")
    refused = run("plan", path, "--target", "1k", "--json")
    assert refused.returncode == 1
    assert json.loads(refused.stdout)["error"]["code"] == "train_base_unknown"
    made = result("plan", path, "--target", "1k", "--method", "yarn", "--train-freq-base", "500")
    assert (made["train_length"]["value"], made["freq_base"]["after"]) == (256, 500.0)
    as_it_stands = result(
        "plan", path, "--target", "1k", "--method", "gamma", "--train-length", "512"
    )
    base = as_it_stands["freq_base"]
    assert (base["before"], base["after"]) == (1000.0, 2000.0)


def test_context_length_alone_is_raised_where_training_covers_the_target(llama: Path) -> None:
    asked = ("--target", "8k", "--train-length", "8k")
    assert [plan["method"] for plan in result("plan", llama, *asked)["plans"]] == ["context-length"]
    done = result("rewrite", llama, *asked)
    assert done["edits"] == [
        {"key": "llama.context_length", "type": "UINT32", "before": 2048, "after": 8192}
    ]
    assert done["verdict"] == "NO-EXTENSION-NEEDED"
    assert result("inspect", llama)["rope"]["scaling"]["original_context_length"] is None
    assert result("rewrite", llama, *asked)["strategy"] is None
    below = run("rewrite", llama, "--target", "1k", "--train-length", "8k")
    assert below.returncode == 1
    assert "nothing to write" in below.stderr


def test_raising_context_length_alone_can_be_asked_for_by_name(llama: Path) -> None:
    done = run("rewrite", llama, "--target", "8k", "--method", "context-length")
    assert "context-length to 8,192 tokens (factor 4), the rotation stays as it is" in done.stdout
    assert "only context_length is raised" in done.stderr


def test_a_raised_context_length_is_said_to_other_engines(llama: Path) -> None:
    asked = ("--target", "8k", "--train-length", "8k", "--emit", "hf,llama.cpp")
    told = run("plan", llama, *asked).stdout
    assert '"max_position_embeddings": 8192' in told
    assert "--ctx-size 8192" in told


def test_the_documented_length_is_planned_from_and_its_source_shown(qwen3: Path) -> None:
    made = result("plan", qwen3, "--target", "128k", "--method", "yarn")
    assert made["train_length"]["value"] == 32768
    assert "https://github.com/QwenLM/Qwen3/" in made["train_length"]["source"]
    assert made["freq_scale_factor"] == 4.0
    told = run("inspect", qwen3).stdout
    assert "Qwen3: trained on 32,768, YaRN 4 to 131,072 (https://" in told
    given = result("plan", qwen3, "--target", "80k", "--method", "yarn", "--train-length", "40k")
    assert given["train_length"] == {"value": 40960, "source": "--train-length"}


def test_the_documented_scaling_is_a_row_of_its_own(qwen3: Path) -> None:
    plans = result("plan", qwen3, "--target", "64k")
    assert plans["documented"]["target_length"] == 131072
    assert plans["documented"]["freq_scale_factor"] == 4.0
    assert all(plan["target_length"] == 65536 for plan in plans["plans"])
    assert "documented" in run("plan", qwen3, "--target", "64k").stdout
