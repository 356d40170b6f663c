"""The flags for llama-server: llama.cpp rotates by them as by the rewritten file."""

from __future__ import annotations

import itertools
import shlex
import struct
from typing import TYPE_CHECKING, Any

import pytest

from ggufext.editing.rewrite import rewrite
from ggufext.llama.rope_nodes import observe
from ggufext.llama.settings import ContextSettings
from ggufext.opened.model import facts_of
from ggufext.planning.emit import Engine, emit
from ggufext.planning.methods import Method
from ggufext.planning.plan import plan
from ggufext.planning.request import PlanRequest, Recipe, YarnRecipe
from llama_here import needs_llama_cpp
from random_model import write_random_model

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

needs_llama_cpp()


METHODS = (Method.GAMMA, Method.NTK, Method.YARN, Method.LINEAR)
TOKENS = tuple((7 * i * i + 3 * i) % 250 for i in range(300))


def as_float32(text: str) -> float:
    value: float = struct.unpack("<f", struct.pack("<f", float(text)))[0]
    return value


#: What common/arg.cpp does with the text of each flag.
CONTEXT_PARAMETERS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "--rope-scaling": ("rope_scaling_type", str),
    "--rope-scale": ("rope_freq_scale", lambda text: 1.0 / as_float32(text)),
    "--rope-freq-base": ("rope_freq_base", float),
    "--yarn-orig-ctx": ("yarn_orig_ctx", int),
    "--yarn-ext-factor": ("yarn_ext_factor", float),
}
OVERRIDES: dict[str, Callable[[str], Any]] = {"int": int, "float": float, "str": str}


def as_llama_server(command: str) -> tuple[ContextSettings, dict[str, Any]]:
    """What a command makes of llama.cpp's parameters; the context is kept small."""
    settings: dict[str, Any] = {"n_ctx": 512}
    overrides: dict[str, Any] = {}
    for flag, text in itertools.pairwise(shlex.split(command)):
        if flag in CONTEXT_PARAMETERS:
            name, read = CONTEXT_PARAMETERS[flag]
            settings[name] = read(text)
        elif flag == "--override-kv":
            for override in text.split(","):
                key, _, typed = override.partition("=")
                kind, _, value = typed.partition(":")
                overrides[key] = OVERRIDES[kind](value)
        else:
            assert flag in {"-m", "--ctx-size"} or not flag.startswith("-")
    return ContextSettings(**settings), overrides


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3", "gemma3"])
@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.value)
@pytest.mark.parametrize("target", [8192, 2927])
def test_flags_rotate_like_the_rewritten_file(
    architecture: str,
    method: Method,
    target: int,
    random_models: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    path = tmp_path / f"{architecture}.gguf"
    path.write_bytes(random_models(architecture).read_bytes())
    facts = facts_of(path)
    made = plan(facts, PlanRequest(target_length=target, method=method))
    emitted = emit(made, facts, Engine.LLAMA_CPP, model=str(path))
    if emitted.not_expressible is not None:
        pytest.skip(f"refused by name: {emitted.not_expressible}")
    settings, overrides = as_llama_server(emitted.blocks[0].text)
    flagged = observe(path, tokens=TOKENS, settings=settings, kv_overrides=overrides)
    rewrite(path, PlanRequest(target_length=target, method=method))
    written = observe(path, tokens=TOKENS, settings=ContextSettings(n_ctx=512))
    assert flagged.n_ctx_train == written.n_ctx_train == target
    assert flagged.rope_nodes == written.rope_nodes
    assert flagged.logits == written.logits


YARN: dict[str, Any] = {
    "rope.scaling.type": "yarn",
    "rope.scaling.factor": 4.0,
    "rope.scaling.original_context_length": 512,
}
LINEAR: dict[str, Any] = {"rope.scaling.type": "linear", "rope.scaling.factor": 4.0}


def test_flags_say_what_a_recipe_says_of_yarn(tmp_path: Path) -> None:
    path = write_random_model(tmp_path / "model.gguf", "mistral3")
    recipe = Recipe(Method.YARN, yarn=YarnRecipe(16.0, 2.0, 1.25))
    request = PlanRequest(target_length=8192, method=Method.YARN, recipe=recipe)
    facts = facts_of(path, request)
    emitted = emit(plan(facts, request), facts, Engine.LLAMA_CPP, model=str(path))
    settings, overrides = as_llama_server(emitted.blocks[0].text)
    flagged = observe(path, tokens=TOKENS, settings=settings, kv_overrides=overrides)
    rewrite(path, request)
    written = observe(path, tokens=TOKENS, settings=ContextSettings(n_ctx=512))
    assert flagged.rope_nodes == written.rope_nodes
    assert flagged.logits == written.logits


@pytest.mark.parametrize(
    ("architecture", "keys", "method", "train_length"),
    [
        ("mistral3", {**YARN, "rope.scaling.yarn_beta_fast": 4.0}, Method.YARN, None),
        ("mistral3", {**YARN, "rope.scaling.yarn_log_multiplier": 1.0}, Method.YARN, None),
        ("deepseek2", {**YARN, "rope.scaling.yarn_log_multiplier": 0.1}, Method.YARN, None),
        ("grok", {**YARN, "rope.scaling.yarn_ext_factor": 0.5}, Method.YARN, None),
        ("grok", {"rope.scaling.yarn_ext_factor": 1.0}, Method.LINEAR, None),
        ("llama", LINEAR, Method.GAMMA, None),
        ("llama", LINEAR, Method.GAMMA, 8192),
        ("qwen3", {**YARN, "rope.scaling.original_context_length": None}, Method.GAMMA, 8192),
    ],
)
def test_flags_for_scaled_models_leave_in_force_what_the_file_says(
    architecture: str,
    keys: dict[str, Any],
    method: Method,
    train_length: int | None,
    tmp_path: Path,
) -> None:
    path = tmp_path / "model.gguf"
    write_random_model(
        path, architecture, metadata={f"{architecture}.{key}": v for key, v in keys.items()}
    )
    request = PlanRequest(target_length=8192, method=method, train_length=train_length)
    facts = facts_of(path, request)
    made = plan(facts, request)
    emitted = emit(made, facts, Engine.LLAMA_CPP, model=str(path))
    assert emitted.not_expressible is None
    settings, overrides = as_llama_server(emitted.blocks[0].text)
    flagged = observe(path, tokens=TOKENS, settings=settings, kv_overrides=overrides)
    rewrite(path, request)
    written = observe(path, tokens=TOKENS, settings=ContextSettings(n_ctx=512))
    assert flagged.n_ctx_train == written.n_ctx_train == 8192
    assert flagged.rope_nodes == written.rope_nodes
    assert flagged.logits == written.logits
