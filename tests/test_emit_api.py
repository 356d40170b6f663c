"""Plans for other engines from Python."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import ggufext
from ggufext import Engine, Method
from ggufext.planning.request import PlanRequest

if TYPE_CHECKING:
    from pathlib import Path


def test_a_file_is_planned_and_said_for_another_engine(llama: Path) -> None:
    made = ggufext.plan(llama, PlanRequest(target_length=8192, method=Method.YARN))
    found = ggufext.emit(llama, made, Engine.LLAMA_CPP)
    assert "--rope-scaling yarn" in found.blocks[0].text


def test_a_configuration_is_planned_and_said_for_hugging_face(tmp_path: Path) -> None:
    config = {
        "model_type": "llama",
        "hidden_size": 4096,
        "num_attention_heads": 32,
        "num_hidden_layers": 2,
        "max_position_embeddings": 8192,
        "rope_theta": 500000.0,
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    made = ggufext.plan(tmp_path, PlanRequest(target_length=32768))
    found = ggufext.emit(tmp_path, made, Engine.HF)
    assert json.loads(found.blocks[0].text)["rope_parameters"]["rope_theta"] == 2e6
