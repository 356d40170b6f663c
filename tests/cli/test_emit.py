"""``plan --emit`` and plans of a config.json, as a user or a program meets them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from program import result, run

if TYPE_CHECKING:
    from pathlib import Path

ENGINES = ["hf", "vllm", "llama.cpp", "ollama", "koboldcpp", "lmstudio"]

CONFIG = {
    "model_type": "llama",
    "hidden_size": 4096,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "num_hidden_layers": 32,
    "max_position_embeddings": 8192,
    "rope_theta": 500000.0,
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    return tmp_path


def test_every_engine_is_in_the_json_in_the_order_asked_for(llama: Path) -> None:
    made = result("plan", llama, "--target", "8k", "--method", "yarn", "--emit", ",".join(ENGINES))
    assert [emitted["engine"] for emitted in made["emit"]] == ENGINES
    assert all(
        set(emitted) == {"engine", "blocks", "not_expressible", "notes"} for emitted in made["emit"]
    )
    assert made["emit"][0]["blocks"][0]["title"].startswith("config.json of Transformers 5")


def test_every_method_is_emitted_when_none_is_named(llama: Path) -> None:
    made = result("plan", llama, "--target", "8k", "--emit", "llama.cpp")
    assert all(len(each["emit"]) == 1 for each in made["plans"])


def test_nothing_is_emitted_that_nobody_asked_for(llama: Path) -> None:
    assert result("plan", llama, "--target", "8k", "--method", "yarn")["emit"] == []


def test_blocks_stand_on_standard_output_as_they_are_to_be_pasted(llama: Path) -> None:
    done = run("plan", llama, "--target", "8k", "--method", "yarn", "--emit", "ollama,koboldcpp")
    assert f"FROM {llama}\nPARAMETER num_ctx 8192\n" in done.stdout
    assert "koboldcpp, yarn: not expressible there: " in done.stdout


def test_an_unknown_engine_is_a_usage_error(llama: Path) -> None:
    done = run("plan", llama, "--target", "8k", "--emit", "hf,exllama")
    assert done.returncode == 2
    assert "'exllama' is no engine" in done.stderr
    assert "koboldcpp" in done.stderr


@pytest.mark.parametrize("named", ["", "config.json"])
def test_a_configuration_is_planned_and_emitted_for_hugging_face(folder: Path, named: str) -> None:
    made = result("plan", folder / named, "--target", "32k", "--method", "yarn")
    assert made["train_length"] == {"value": 8192, "source": "max_position_embeddings"}
    assert made["edits"] == []
    (emitted,) = made["emit"]
    rotation = json.loads(emitted["blocks"][0]["text"])["rope_parameters"]
    assert rotation["factor"] == 4.0
    assert result("plan", folder / named, "--target", "32k")["plans"][0]["method"] == "gamma"


def test_engines_that_run_gguf_are_refused_for_a_configuration(folder: Path) -> None:
    made = result("plan", folder, "--target", "32k", "--method", "ntk", "--emit", "ollama")
    assert "GGUF" in made["emit"][0]["not_expressible"]


@pytest.mark.parametrize("named", ["", "config.json"])
def test_a_configuration_is_not_rewritten(folder: Path, named: str) -> None:
    done = run("rewrite", folder / named, "--target", "32k", "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["error"]["code"] == "config_not_rewritten"
    assert "--emit hf" in done.stderr
    assert json.loads((folder / "config.json").read_text()) == CONFIG


def test_a_configuration_has_no_weights_to_fit_beside(folder: Path) -> None:
    assert run("plan", folder, "--target", "32k", "--vram", "12g").returncode == 2


def test_an_error_in_a_configuration_names_its_place(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps(CONFIG | {"rope_theta": "many"}))
    done = run("plan", folder, "--target", "32k")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert f"{folder / 'config.json'}: rope_theta: " in line


def test_a_refused_plan_names_the_file(llama: Path) -> None:
    done = run("plan", llama, "--target", "100m")
    assert done.returncode == 1
    assert str(llama) in done.stderr
