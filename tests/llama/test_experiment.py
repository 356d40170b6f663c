"""What the table of architectures and the plans say of each layer is what llama.cpp does."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

import experiment
from experiment import try_architecture
from ggufext.errors import EngineError, PlanError
from ggufext.header import facts
from ggufext.header.architectures import Layout, LocalRotation, architecture
from ggufext.opened import model as opened_model
from llama_here import needs_llama_cpp
from random_architectures import ARCHITECTURES
from random_model import write_random_model
from tiny_architectures import TINY

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from experiment import Trial
    from ggufext.llama.process import LlamaProcess

    Keys = dict[str, Any]

needs_llama_cpp()


LOCAL, SECTIONS = "attention.sliding_window", "rope.dimension_sections"
PATTERN, SWITCH = "attention.sliding_window_pattern", "rope.scaling.finetuned"


@pytest.fixture
def try_file(probe: LlamaProcess, tmp_path: Path) -> Callable[[str, Keys, int | None], Trial]:
    def run(name: str, keys: Keys, layers: int | None = None) -> Trial:
        path = tmp_path / "model.gguf"
        metadata = {f"{name}.{key}": value for key, value in keys.items()}
        write_random_model(path, name, layers=layers, metadata=metadata)
        return try_architecture(path, process=probe)

    return run


@pytest.mark.parametrize("name", [*ARCHITECTURES, *TINY])
def test_every_method_does_to_every_layer_what_is_planned(
    trial: Callable[[str], Trial], name: str
) -> None:
    assert trial(name).disagreements == ()


@pytest.mark.parametrize(
    ("name", "keys", "layers"),
    [
        ("olmo2", {LOCAL: None}, None),
        ("gemma3", {LOCAL: None}, None),
        ("gemma3", {PATTERN: 0}, None),
        ("gemma3", {"rope.freq_base_swa": 5e5}, None),
        ("plamo3", {LOCAL: None}, None),
        ("gemma2", {LOCAL: None}, None),
        ("gemma2", {PATTERN: 0}, None),
        ("gemma2", {"rope.dimension_count_swa": 16}, None),
        ("gpt-oss", {"rope.freq_base_swa": 7e4}, None),
        ("gpt-oss", {"rope.scaling.type": "none", "rope.scaling.factor": 4.0}, None),
        ("llama4", {"rope.scaling.type": "none", "rope.scaling.factor": 4.0}, None),
        ("olmo2", {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0}, None),
        ("olmo2", {"rope.scaling.attn_factor": 1.3}, None),
        ("gemma3", {"rope.scaling.attn_factor": 1.3}, None),
        ("cohere2", {PATTERN: 2}, None),
        ("exaone4", {}, 64),
        ("exaone-moe", {PATTERN: [True, False, True, True]}, None),
        ("llama4", {PATTERN: 2}, None),
        ("afmoe", {PATTERN: 2}, None),
        ("smallthinker", {LOCAL: None}, None),
        ("smallthinker", {}, 4),
        ("smallthinker", {PATTERN: 2}, None),
        ("granite_swa", {"attention.rope_pattern": [True, False]}, None),
        ("granite_swa", {"attention.rope_pattern": [False, True]}, None),
        ("lfm2", {LOCAL: 16}, None),
        ("phi3", {LOCAL: 16}, None),
        ("hunyuan-dense", {"rope.scaling.alpha": 1000.0}, None),
        ("hunyuan-dense", {SECTIONS: [4, 6, 6, 0]}, None),
        ("glm4", {SECTIONS: [4, 6, 6, 0]}, None),
        ("glm4", {SECTIONS: [16, 0, 0, 0]}, None),
        ("phi2", {"rope.dimension_count": 16}, None),
        ("stablelm", {"rope.dimension_count": 8}, None),
        ("command-r", {"rope.freq_base": None}, None),
    ],
)
def test_the_same_holds_for_other_files_of_an_architecture(
    try_file: Callable[..., Trial], name: str, keys: Keys, layers: int | None
) -> None:
    assert try_file(name, keys, layers).disagreements == ()


@pytest.mark.parametrize(
    ("name", "keys", "layers", "code"),
    [
        ("granite", {SWITCH: False}, None, "no_rope"),
        ("baichuan", {}, 40, "no_rope"),
    ],
)
def test_models_that_do_not_rotate_are_refused(
    try_file: Callable[..., Trial], name: str, keys: Keys, layers: int | None, code: str
) -> None:
    with pytest.raises(PlanError) as caught:
        try_file(name, keys, layers)
    assert caught.value.code == code


def edits(trial: Trial, method: str) -> tuple[str, ...] | str | None:
    made = next(each for each in trial.methods if each.method.value == method)
    return made.refused or made.edits


@pytest.mark.parametrize("name", ["gemma2", "gpt-oss", "spark2_5"])
def test_the_base_of_local_layers_is_written_where_it_would_follow(
    trial: Callable[[str], Trial], name: str
) -> None:
    assert "rope.freq_base_swa" in (edits(trial(name), "gamma") or ())
    assert edits(trial(name), "yarn") == "local_layers_would_change"


@pytest.mark.parametrize("name", ["olmo2", "mellum"])
def test_a_base_that_local_layers_share_is_refused_and_scaling_is_not(
    trial: Callable[[str], Trial], name: str
) -> None:
    assert edits(trial(name), "gamma") == "local_layers_would_change"
    assert "rope.scaling.factor" in (edits(trial(name), "linear") or ())


@pytest.mark.parametrize("name", ["cohere2", "llama4", "smallthinker", "exaone-moe", "afmoe"])
def test_where_only_local_layers_rotate_no_method_touches_the_rotation(
    trial: Callable[[str], Trial], name: str
) -> None:
    written = {edits(trial(name), method.method.value) for method in trial(name).methods}
    assert written == {("context_length",)}


@pytest.mark.parametrize(
    ("name", "wrong", "finding"),
    [
        ("qwen2", {"layout": Layout.INTERLEAVED}, "pairs as HALF, expected INTERLEAVED"),
        ("smollm3", {"unrotated": None}, "layer 3 does not rotate"),
        ("gemma2", {"local_rotation": None}, "KV cache takes"),
        ("gemma2", {"local_rotation": LocalRotation.OWN_BASE, "local_freq_base": 1e4}, "base"),
        ("gemma2", {"local_rotation": LocalRotation.COPIED_BASE}, "scale 0.25, planned 1"),
        ("olmo2", {"local_rotation": LocalRotation.COPIED_BASE}, "base 200000, planned 50000"),
        ("plamo3", {"local_rotation": LocalRotation.COPIED}, "with base 10000, planned 50000"),
        ("mellum", {"local_rotation": LocalRotation.GLOBAL}, "no local layer would change"),
        ("gemma3n", {"cached_layers": None}, "layer 20 has no KV cache"),
        ("deepseek2", {"latent_cache": False}, "KV cache takes"),
        ("deepseek2", {"scales_attention": False}, "is scaled by 1.29648, expected 1"),
        ("qwen35", {"recurrent_interval": None}, "layer 0 does not rotate"),
        ("gemma4", {"rotary_dim_per_layer": False}, "rotates 64 dimensions, expected 32"),
    ],
)
def test_the_experiment_finds_a_wrong_entry(
    try_file: Callable[..., Trial],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    wrong: dict[str, Any],
    finding: str,
) -> None:
    entry = replace(architecture(name), **wrong)
    monkeypatch.setattr(facts, "architecture", lambda _: entry)
    # llama.cpp is to find it, not the list of what it demands.
    monkeypatch.setattr(opened_model, "refuse_unloadable", lambda *_, **_options: None)
    assert finding in " | ".join(try_file(name, {}).disagreements)


def test_the_experiment_finds_a_key_that_is_read_after_all(
    try_file: Callable[..., Trial], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(experiment, "unread_suffixes", lambda _: ("rope.scaling.yarn_beta_fast",))
    (finding,) = try_file("mistral3", {}).disagreements
    assert finding.startswith("keys that are called unread change logits beside yarn")


def test_a_crash_is_named_and_the_next_model_runs(try_file: Callable[..., Trial]) -> None:
    with pytest.raises(EngineError) as caught:
        try_file("llama4", {LOCAL: 0})
    assert caught.value.code == "engine_died"
    assert "f_attn_temp_scale" in caught.value.message
    assert try_file("qwen2", {}).disagreements == ()
