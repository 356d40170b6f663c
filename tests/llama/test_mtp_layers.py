"""Layers that predict tokens behind the next (MTP) rotate as the plan says for the others."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from ggufext.editing.rewrite import rewrite
from ggufext.llama.rope_nodes import observe
from ggufext.llama.settings import MTP_CONTEXT, ContextSettings
from ggufext.opened.model import facts_of
from ggufext.planning.methods import Method
from ggufext.planning.request import PlanRequest
from llama_here import needs_llama_cpp
from random_model import write_random_model
from tiny_architectures import TINY, with_mtp

if TYPE_CHECKING:
    from pathlib import Path

    from ggufext.llama.process import LlamaProcess
    from ggufext.llama.rope_nodes import RopeNode

needs_llama_cpp()

SMALL = ContextSettings(n_ctx=256)


@pytest.mark.parametrize(
    "name", ["glm4moe", "qwen35", "qwen35moe", "qwen3next", "deepseek2", "cohere2moe"]
)
@pytest.mark.parametrize("method", [Method.GAMMA, Method.YARN], ids=lambda m: m.value)
def test_the_layer_behind_the_last_rotates_as_the_last(
    name: str, method: Method, probe: LlamaProcess, tmp_path: Path
) -> None:
    if not probe.hello().release.startswith("0.5."):
        pytest.skip("later releases want the state of the layer before beside each token")
    path = write_random_model(tmp_path / "model.gguf", with_mtp(TINY[name]), type="F32")
    facts = facts_of(path)
    layers = TINY[name].geometry.layers
    assert len(facts.layers) == layers

    def nodes(settings: ContextSettings) -> list[RopeNode]:
        seen = observe(path, tokens=(0, 1), settings=settings, process=probe).rope_nodes
        return [replace(node, layer=0) for node in seen if node.layer >= layers - 1]

    native = nodes(SMALL)
    planned = PlanRequest(target_length=4 * facts.train_length, method=method, force=True)
    rewrite(path, planned)
    extended = nodes(SMALL)
    assert extended != native
    assert nodes(replace(SMALL, ctx_type=MTP_CONTEXT)) == extended
