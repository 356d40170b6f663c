"""Plans from Python, also for other engines."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

import ggufext
from ggufext import Engine, Method, PlanRequest, Recipe
from ggufext.errors import PlanError
from ggufext.text import jsonable
from program import run

if TYPE_CHECKING:
    from pathlib import Path


def write_config(folder: Path) -> Path:
    config = {
        "model_type": "llama",
        "hidden_size": 4096,
        "num_attention_heads": 32,
        "num_hidden_layers": 2,
        "max_position_embeddings": 8192,
        "rope_theta": 500000.0,
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder / "config.json"


def test_a_file_is_planned_and_said_for_another_engine(llama: Path) -> None:
    made = ggufext.plan(llama, PlanRequest(target_length=8192, method=Method.YARN))
    found = ggufext.emit(llama, made, Engine.LLAMA_CPP)
    assert "--rope-scaling yarn" in found.blocks[0].text


def test_a_configuration_is_planned_and_said_for_hugging_face(tmp_path: Path) -> None:
    write_config(tmp_path)
    made = ggufext.plan(tmp_path, PlanRequest(target_length=32768))
    found = ggufext.emit(tmp_path, made, Engine.HF)
    assert json.loads(found.blocks[0].text)["rope_parameters"]["rope_theta"] == 2e6


def test_a_configuration_named_itself_is_served_from_its_folder(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    made = ggufext.plan(config, PlanRequest(target_length=32768, method=Method.YARN))
    blocks = ggufext.emit(config, made, Engine.VLLM).blocks
    assert blocks == ggufext.emit(tmp_path, made, Engine.VLLM).blocks
    assert any(f"vllm serve {tmp_path} " in block.text for block in blocks)


def test_what_was_read_before_says_the_same(llama: Path, tmp_path: Path) -> None:
    request = PlanRequest(target_length=8192, method=Method.YARN)
    facts = ggufext.facts_of(llama, request)
    made = ggufext.plan(facts, request)
    assert made == ggufext.plan(llama, request)
    for engine in Engine:
        assert ggufext.emit(llama, made, engine, known=facts) == ggufext.emit(llama, made, engine)
    config = write_config(tmp_path)
    known = ggufext.read_config(tmp_path)
    assert known is not None
    assert known.facts == ggufext.facts_of(config)
    made = ggufext.plan(known.facts, PlanRequest(target_length=32768))
    assert ggufext.emit(tmp_path, made, Engine.HF, known=known) == ggufext.emit(
        tmp_path, made, Engine.HF
    )
    assert ggufext.read_config(llama) is None


def test_a_recipe_of_another_model_is_refused_unless_forced(llama: Path) -> None:
    recipe = Recipe(Method.NTK, freq_base=9e5, facts_hash="sha256:" + "0" * 64)
    with pytest.raises(PlanError) as caught:
        ggufext.plan(llama, PlanRequest(target_length=8192, method=Method.NTK, recipe=recipe))
    assert caught.value.code == "other_model"
    forced = PlanRequest(target_length=8192, method=Method.NTK, recipe=recipe, force=True)
    assert ggufext.plan(llama, forced).freq_base.after == 9e5


def test_what_fits_is_what_the_command_says(llama: Path) -> None:
    fits = ggufext.cache_fits(llama, ggufext.facts_of(llama), 8192, memory=2**30)
    done = run("plan", llama, "--target", "8k", "--method", "ntk", "--vram", "1g", "--json")
    assert jsonable(fits) == json.loads(done.stdout)["memory"]
