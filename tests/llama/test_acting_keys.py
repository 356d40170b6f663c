"""Files with keys that few architectures read: plans state what llama.cpp's nodes compute."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest

from experiment import try_architecture
from ggufext.audit.check import measure_model
from ggufext.audit.conditions import conditions
from ggufext.audit.request import CheckRequest, LocalSettings
from ggufext.editing.rewrite import rewrite, undo
from ggufext.errors import PlanError
from ggufext.llama.expectation import verify_file
from ggufext.llama.rope_nodes import observe
from ggufext.llama.settings import ContextSettings
from ggufext.opened.model import facts_of, open_model
from ggufext.planning.methods import Method
from ggufext.planning.native import rotation_in_effect
from ggufext.planning.request import PlanRequest, Recipe, YarnRecipe
from llama_here import needs_llama_cpp
from random_model import write_random_model

if TYPE_CHECKING:
    from pathlib import Path

    from ggufext.llama.process import LlamaProcess
    from ggufext.llama.rope_nodes import RopeNode

needs_llama_cpp()


#: Context of the models here, four times the length that their scaling starts from.
CONTEXT = 2048
YARN: dict[str, Any] = {
    "rope.scaling.type": "yarn",
    "rope.scaling.factor": 4.0,
    "rope.scaling.original_context_length": 512,
}
LINEAR: dict[str, Any] = {"rope.scaling.type": "linear", "rope.scaling.factor": 4.0}
SCALING = "rope.scaling."

FILES: list[tuple[str, dict[str, Any]]] = [
    ("mistral3", {**YARN, f"{SCALING}yarn_beta_fast": 4.0}),
    ("mistral3", {**YARN, f"{SCALING}yarn_beta_fast": 16.0, f"{SCALING}yarn_beta_slow": 2.0}),
    ("mistral3", {**YARN, f"{SCALING}yarn_log_multiplier": 1.0}),
    ("mistral3", {**YARN, f"{SCALING}yarn_log_multiplier": 0.5}),
    ("mistral3", {**YARN, "attention.temperature_scale": 0.1}),
    ("mistral3", {"attention.temperature_scale": 0.1}),
    ("mistral3", {f"{SCALING}yarn_beta_fast": 4.0, f"{SCALING}yarn_log_multiplier": 1.0}),
    ("mistral3", {**LINEAR, f"{SCALING}yarn_log_multiplier": 1.0}),
    ("deepseek2", YARN),
    ("deepseek2", {**YARN, f"{SCALING}yarn_log_multiplier": 0.1}),
    ("deepseek2", {**YARN, f"{SCALING}yarn_log_multiplier": 0.0707}),
    ("deepseek2", {**LINEAR, f"{SCALING}yarn_log_multiplier": 0.0707}),
    ("deepseek2", {f"{SCALING}yarn_log_multiplier": 0.1}),
    ("mistral4", {**YARN, f"{SCALING}yarn_log_multiplier": 0.1}),
    ("mistral4", {**YARN, f"{SCALING}yarn_log_multiplier": 0.0707}),
    (
        "mistral4",
        {**YARN, "attention.temperature_scale": 0.1, "attention.temperature_length": 64},
    ),
    ("grok", YARN),
    ("grok", LINEAR),
    ("grok", {**YARN, f"{SCALING}yarn_ext_factor": 1.0, f"{SCALING}yarn_beta_fast": 16.0}),
    ("grok", {**YARN, f"{SCALING}yarn_ext_factor": 0.5, f"{SCALING}yarn_attn_factor": 1.3}),
    ("grok", {**YARN, f"{SCALING}yarn_ext_factor": 0.0, f"{SCALING}yarn_attn_factor": 1.3}),
    ("grok", {**LINEAR, f"{SCALING}yarn_ext_factor": 1.0}),
    ("grok", {f"{SCALING}yarn_ext_factor": 1.0, f"{SCALING}yarn_attn_factor": 1.3}),
    ("grok", {f"{SCALING}yarn_ext_factor": 0.0, f"{SCALING}yarn_attn_factor": 1.3}),
    ("grok", {f"{SCALING}yarn_ext_factor": -1.0}),
    ("llama", {**YARN, f"{SCALING}factor": 0.5}),
    ("llama", {**YARN, f"{SCALING}yarn_beta_fast": 4.0}),
    ("llama", LINEAR),
    ("gemma3", LINEAR),
]
every_file = pytest.mark.parametrize(
    ("name", "keys"), FILES, ids=[f"{name}-{index}" for index, (name, _) in enumerate(FILES)]
)


def written(path: Path, name: str, keys: dict[str, Any]) -> Path:
    metadata = {f"{name}.{key}": value for key, value in keys.items()}
    return write_random_model(path, name, context=CONTEXT, metadata=metadata)


def seen(path: Path, probe: LlamaProcess) -> RopeNode:
    settings = ContextSettings(n_ctx=256)
    observed = observe(path, tokens=(0,), settings=settings, process=probe)
    return observed.rope_nodes[-1]


def frequencies(node: RopeNode) -> list[float]:
    """ggml's rope_yarn in float64: radians a token of each pair."""

    def pair(turns: float) -> float:
        ratio = math.log(node.n_ctx_orig / (turns * 2 * math.pi))
        return node.n_dims * ratio / (2 * math.log(node.freq_base))

    low = high = 0.0
    if node.ext_factor:
        low = max(0.0, math.floor(pair(node.beta_fast)))
        high = min(node.n_dims - 1.0, math.ceil(pair(node.beta_slow)))
    found = []
    for i in range(node.n_dims // 2):
        turning = node.freq_base ** (-2 * i / node.n_dims)
        if node.factors is not None:
            turning /= node.factors[i]
        ramp = 1 - min(1.0, max(0.0, (i - low) / max(0.001, high - low)))
        mix = ramp * node.ext_factor
        found.append(node.freq_scale * turning * (1 - mix) + turning * mix)
    return found


def attention(node: RopeNode) -> float:
    usual = 1.0 - 0.1 * math.log(node.freq_scale) if node.ext_factor else 1.0
    return node.attn_factor * usual


@every_file
def test_every_method_does_what_is_planned(
    name: str, keys: dict[str, Any], probe: LlamaProcess, tmp_path: Path
) -> None:
    path = written(tmp_path / "model.gguf", name, keys)
    assert try_architecture(path, process=probe).disagreements == ()


@every_file
def test_the_file_as_it_is_rotates_as_the_facts_say(
    name: str, keys: dict[str, Any], probe: LlamaProcess, tmp_path: Path
) -> None:
    path = written(tmp_path / "model.gguf", name, keys)
    rotation, node = rotation_in_effect(facts_of(path), CONTEXT), seen(path, probe)
    assert rotation.inv_freq == pytest.approx(frequencies(node), rel=1e-6)
    assert rotation.attention_factor == pytest.approx(attention(node), rel=1e-6)


@pytest.mark.parametrize("method", [Method.GAMMA, Method.NTK, Method.YARN, Method.LINEAR])
@every_file
def test_a_plan_states_what_the_node_computes(
    name: str, keys: dict[str, Any], method: Method, probe: LlamaProcess, tmp_path: Path
) -> None:
    path = written(tmp_path / "model.gguf", name, keys)
    try:
        made = rewrite(path, PlanRequest(target_length=4 * CONTEXT, method=method, force=True)).plan
    except PlanError:
        return  # the planning tests say which methods go together with which scaling
    node = seen(path, probe)
    assert made.inv_freq == pytest.approx(frequencies(node), rel=1e-6)
    assert made.attention_factor == pytest.approx(attention(node), rel=1e-6)
    if method is Method.YARN:
        assert len(verify_file(path, made)) == 2


@every_file
def test_yarn_of_a_recipe_is_what_the_node_computes(
    name: str, keys: dict[str, Any], probe: LlamaProcess, tmp_path: Path
) -> None:
    path = written(tmp_path / "model.gguf", name, keys)
    reads = facts_of(path).reads_betas and keys.get(f"{SCALING}type") != "yarn"
    fast, slow = (16.0, 2.0) if reads else (None, None)
    recipe = Recipe(Method.YARN, yarn=YarnRecipe(fast, slow, 1.25))
    request = PlanRequest(target_length=4 * CONTEXT, method=Method.YARN, recipe=recipe)
    try:
        made = rewrite(path, request).plan
    except PlanError:
        return  # refused as yarn without a recipe is, or for latent attention
    node = seen(path, probe)
    assert made.inv_freq == pytest.approx(frequencies(node), rel=1e-6)
    assert made.attention_factor == 1.25 == pytest.approx(attention(node), rel=1e-6)
    if reads:
        assert (node.beta_fast, node.beta_slow) == (fast, slow)
    assert len(verify_file(path, made)) == 2


def test_a_file_with_written_betas_is_run_as_its_original_without_a_copy(
    probe: LlamaProcess, tmp_path: Path
) -> None:
    path = written(tmp_path / "model.gguf", "grok", {})
    original = path.read_bytes()
    before = seen(path, probe)
    recipe = Recipe(Method.YARN, yarn=YarnRecipe(16.0, 2.0, 1.25))
    request = PlanRequest(target_length=4 * CONTEXT, method=Method.YARN, recipe=recipe)
    rewrite(path, request)
    with open_model(path) as model:
        (native,) = conditions(model, ("native",), request)
    assert native.copy is None
    settings = ContextSettings(n_ctx=256)
    overrides = dict(native.kv_overrides)
    again = observe(
        path, tokens=(0,), settings=settings, kv_overrides=overrides, process=probe
    ).rope_nodes[-1]
    assert again == before
    undo(path)
    assert path.read_bytes() == original


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("mistral3", {**YARN, f"{SCALING}yarn_log_multiplier": 1.0}),
        ("deepseek2", {**YARN, f"{SCALING}yarn_log_multiplier": 0.1}),
        ("mistral4", {**YARN, f"{SCALING}yarn_log_multiplier": 0.1}),
        ("grok", {**YARN, f"{SCALING}yarn_ext_factor": 1.0}),
    ],
)
def test_the_audit_passes_on_an_unmodified_file(
    name: str, keys: dict[str, Any], tmp_path: Path
) -> None:
    path = written(tmp_path / "model.gguf", name, keys)
    request = CheckRequest(
        lengths=(512,),
        depths=1,
        trials=1,
        conditions=("file", "planned:yarn"),
        engine=LocalSettings(threads=1, audit=True),
    )
    assert len(measure_model(path, request).run.audited) == 2
