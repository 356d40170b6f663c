"""``--json`` in the states that other tests of commands do not meet.

`program.run` compares everything that is printed with the schema of its command.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from program import result, run
from split_model import split_model

if TYPE_CHECKING:
    from pathlib import Path

WRITE = ("rewrite", "--target", "8k")


def test_a_dry_run_says_what_a_rewrite_then_does(llama: Path) -> None:
    tried, done = result(*WRITE, llama, "--dry-run"), result(*WRITE, llama)
    assert all(tried[name] == done[name] for name in set(done) - {"seconds"})
    assert set(done["ranges"][0]) == {"start", "end", "what"}
    assert sum(each["end"] - each["start"] for each in done["ranges"]) == done["bytes_written"]
    assert (done["in_use"], done["verified"], done["modelfile"]) == (False, [], None)
    again = result(*WRITE, llama)
    assert (again["strategy"], again["ranges"]) == (None, [])


def test_what_was_verified_is_in_sentences(llama: Path) -> None:
    assert all(" " in said for said in result(*WRITE, llama, "--verify")["verified"])


def test_undo_and_recover_say_the_state_of_the_file(llama: Path) -> None:
    size = llama.stat().st_size
    result(*WRITE, llama)
    assert result("undo", "--check", llama)["state"] == "possible"
    assert result("recover", llama)["state"] == "untouched"
    undone = result("undo", llama)
    assert (undone["state"], undone["size"]) == ("restored", size)
    refused = run("undo", llama, "--json")
    assert json.loads(refused.stdout)["path"] == str(llama)


@pytest.mark.parametrize("method", ["dynamic", "self-extend"])
def test_methods_of_a_running_program_name_their_training_length(llama: Path, method: str) -> None:
    made = result("plan", llama, "--target", "8k", "--method", method)
    assert (
        made["train_length"] == result("plan", llama, "--target", "8k")["plans"][0]["train_length"]
    )
    assert (made["path"], made["method"]) == (str(llama), method)


def test_plans_with_memory_and_engines_have_the_fields_of_those_without(llama: Path) -> None:
    asked = ("plan", llama, "--target", "8k", "--method", "yarn")
    bare, full = result(*asked), result(*asked, "--vram", "1g", "--emit", "hf,vllm,lmstudio")
    assert set(bare) == set(full)
    assert (bare["memory"], bare["emit"]) == ([], [])
    assert len(full["memory"]) == len(full["emit"]) == 3


def test_models_of_every_kind_stand_in_one_list(llama: Path, tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    parts = split_model(llama, tmp_path / "parts" / "model", parts=3)
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF")
    done = run("inspect", llama, parts[0], tmp_path / "parts", broken, "--json")
    plain, first, folder, failure = json.loads(done.stdout)["files"]
    assert plain["shards"] == []
    assert len(first["shards"]) == len(parts)
    assert folder["where"] == "folder"
    assert (failure["path"], failure["error"]["code"]) == (str(broken), "truncated")


def test_places_are_listed_without_a_name(tmp_path: Path) -> None:
    home = {**os.environ, "HOME": str(tmp_path), "OLLAMA_MODELS": str(tmp_path / "none")}
    assert json.loads(run("inspect", "--json", env=home).stdout) == {"places": []}


def test_wrong_usage_prints_no_json(llama: Path) -> None:
    done = run("plan", llama, "--json")
    assert (done.returncode, done.stdout) == (2, "")
