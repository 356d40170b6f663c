"""The entries for config.json, computed by Transformers itself: the plan's frequencies come out."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from ggufext.header.hf_config import read_config
from ggufext.planning.emit import Engine, emit
from ggufext.planning.methods import Method
from ggufext.planning.native import native_scaling
from ggufext.planning.plan import plan
from ggufext.planning.request import PlanRequest, Recipe, YarnRecipe
from planning.facts import LLAMA_2, LLAMA_3, facts
from planning.test_emit import (
    METHODS,
    factors_of_single_pairs,
    taking_factors,
    with_local_layers,
)

if TYPE_CHECKING:
    from pathlib import Path

    from ggufext.header.facts import ModelFacts
    from ggufext.planning.result import Plan

pytest.importorskip("torch", reason="needs torch: pip install torch")
transformers = pytest.importorskip(
    "transformers", reason="needs Transformers: pip install transformers"
)

CURRENT = int(transformers.__version__.split(".")[0]) >= 5

ODD = facts(train_length=6000, freq_base=1.5e5, rotary_dim=96)


def loaded(made: Plan, of: ModelFacts, name: str) -> Any:
    """The configuration class of an architecture with the entries for this Transformers."""
    blocks = emit(made, of, Engine.HF, model="m").blocks
    if not CURRENT and len(blocks) < 2:
        pytest.skip("refused by name for Transformers 4")
    entries = json.loads(blocks[0 if CURRENT else 1].text)
    heads = 2
    return getattr(transformers, name)(
        hidden_size=heads * of.head_dim,
        num_attention_heads=heads,
        num_key_value_heads=1,
        num_hidden_layers=len(of.layers),
        head_dim=of.head_dim,
        **entries,
    )


def assert_same_rotation(rotary: Any, made: Plan, layer_type: str | None = None) -> None:
    prefix = "" if layer_type is None else f"{layer_type}_"
    found = getattr(rotary, f"{prefix}inv_freq").tolist()
    assert found == pytest.approx(made.inv_freq, rel=1e-5)
    attention = getattr(rotary, f"{prefix}attention_scaling")
    assert attention == pytest.approx(made.attention_factor, rel=1e-6)


@pytest.mark.parametrize("of", [LLAMA_2, LLAMA_3, ODD], ids=["llama2", "llama3", "odd"])
@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.value)
@pytest.mark.parametrize("target", [20_000, 32_768])
def test_transformers_computes_the_plan(of: ModelFacts, method: Method, target: int) -> None:
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    made = plan(of, PlanRequest(target_length=target, method=method))
    config = loaded(made, of, "LlamaConfig")
    assert config.max_position_embeddings == target
    assert_same_rotation(LlamaRotaryEmbedding(config), made)


def test_transformers_computes_yarn_as_a_recipe_says() -> None:
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    recipe = Recipe(Method.YARN, yarn=YarnRecipe(16.0, 2.0, 1.05))
    made = plan(LLAMA_3, PlanRequest(target_length=32_768, method=Method.YARN, recipe=recipe))
    assert_same_rotation(LlamaRotaryEmbedding(loaded(made, LLAMA_3, "LlamaConfig")), made)


def test_transformers_computes_factors_of_single_pairs_in_long_contexts() -> None:
    import torch
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    made = factors_of_single_pairs(LLAMA_3)
    rotary = LlamaRotaryEmbedding(loaded(made, LLAMA_3, "LlamaConfig"))
    assert rotary.inv_freq.tolist() == pytest.approx(LLAMA_3.inv_freq, rel=1e-5)
    positions = torch.arange(9000)[None]
    rotary(torch.zeros(1, 1, 9000, 1), positions)
    assert_same_rotation(rotary, made)


@pytest.mark.parametrize("of", [LLAMA_2, LLAMA_3, ODD], ids=["llama2", "llama3", "odd"])
def test_transformers_computes_llama3(of: ModelFacts) -> None:
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    made = plan(taking_factors(of), PlanRequest(target_length=32_768, method=Method.LLAMA3))
    assert_same_rotation(LlamaRotaryEmbedding(loaded(made, of, "LlamaConfig")), made)


LLAMA_3_1 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


@pytest.mark.parametrize(
    ("scaling", "length", "chosen"),
    [
        (None, 8192, METHODS),
        (LLAMA_3_1, 131_072, (*METHODS, Method.LLAMA3)),
        ({"rope_type": "linear", "factor": 4.0}, 16_384, (Method.LINEAR,)),
        (
            {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 4096},
            16_384,
            (Method.YARN,),
        ),
    ],
    ids=["unscaled", "llama3", "linear", "yarn"],
)
def test_a_configuration_is_extended_on_top_of_its_own_scaling(
    scaling: dict[str, Any] | None, length: int, chosen: tuple[Method, ...], tmp_path: Path
) -> None:
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    entries = {
        "model_type": "llama",
        "hidden_size": 512,
        "num_attention_heads": 4,
        "num_hidden_layers": 1,
        "max_position_embeddings": length,
        "rope_theta": 5e5,
        "rope_scaling": scaling,
    }
    path = tmp_path / "config.json"
    path.write_text(json.dumps(entries))
    config = read_config(path)
    native = LlamaRotaryEmbedding(transformers.LlamaConfig(**entries))
    assert native.inv_freq.tolist() == pytest.approx(
        native_scaling(config.facts).inv_freq, rel=1e-5
    )
    for method in chosen:
        made = plan(config.facts, PlanRequest(target_length=2 * length, method=method))
        blocks = emit(made, config.facts, Engine.HF, model="m", config=config).blocks
        new = json.loads(blocks[0 if CURRENT else 1].text)
        outdated = {"rope_theta", "rope_scaling"}
        kept = {key: value for key, value in entries.items() if key not in outdated}
        assert_same_rotation(LlamaRotaryEmbedding(transformers.LlamaConfig(**kept | new)), made)


@pytest.mark.skipif(not CURRENT, reason="Transformers 4 keeps two rotary modules in gemma3")
@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.value)
def test_transformers_leaves_local_layers_alone(method: Method) -> None:
    from transformers.models.gemma3.modeling_gemma3 import Gemma3RotaryEmbedding

    of = with_local_layers("gemma3")
    made = plan(of, PlanRequest(target_length=32_768, method=method))
    rotary = Gemma3RotaryEmbedding(loaded(made, of, "Gemma3TextConfig"))
    assert_same_rotation(rotary, made, "full_attention")
    local = [1e4 ** (-2 * i / of.rotary_dim) for i in range(of.rotary_dim // 2)]
    assert rotary.sliding_attention_inv_freq.tolist() == pytest.approx(local, rel=1e-5)


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.value)
def test_transformers_computes_the_plan_for_phi3(method: Method) -> None:
    from transformers.models.phi3.modeling_phi3 import Phi3RotaryEmbedding

    of = facts(train_length=4096, freq_base=1e4, architecture="phi3")
    made = plan(of, PlanRequest(target_length=32_768, method=method))
    assert_same_rotation(Phi3RotaryEmbedding(loaded(made, of, "Phi3Config")), made)
