"""Rewritten files in llama.cpp: every planned value arrives, and nothing else moves."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from ggufext.editing.rewrite import rewrite, undo
from ggufext.errors import EditError
from ggufext.header.header import read_header
from ggufext.llama.expectation import verify_file
from ggufext.llama.rope_nodes import observe
from ggufext.llama.settings import ContextSettings
from ggufext.opened.model import facts_of
from ggufext.opened.strategies import Strategy
from ggufext.planning.footprint import CacheType, kv_cache_bytes
from ggufext.planning.methods import Method
from ggufext.planning.plan import plan
from ggufext.planning.request import PlanRequest
from llama_here import needs_llama_cpp
from observed import cache_lines
from split_model import split_model

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

needs_llama_cpp()


ARCHITECTURES = ("llama", "qwen2", "qwen3", "gemma3")
TARGET = 8192
SETTINGS = ContextSettings(n_ctx=512)
#: Far apart: a changed rotation shows at any distance, an unchanged one at none.
TOKENS = tuple((7 * i * i + 3 * i) % 250 for i in range(300))

every_architecture = pytest.mark.parametrize("architecture", ARCHITECTURES)
#: Those that overrides can stand in for: they write no tensors.
WITHOUT_TENSORS = (Method.GAMMA, Method.NTK, Method.YARN, Method.LINEAR)
every_method = pytest.mark.parametrize("method", WITHOUT_TENSORS, ids=lambda m: m.value)


@pytest.fixture
def model(architecture: str, random_models: Callable[[str], Path], tmp_path: Path) -> Path:
    path = tmp_path / f"{architecture}.gguf"
    path.write_bytes(random_models(architecture).read_bytes())
    return path


@every_architecture
@pytest.mark.parametrize("method", [Method.GAMMA, Method.NTK])
def test_values_alone_rotate_as_the_whole_plan_does(model: Path, method: Method) -> None:
    original, size = model.read_bytes(), model.stat().st_size
    request = PlanRequest(target_length=TARGET, method=method)
    present = read_header(model).keys
    done = rewrite(model, request, strategy=Strategy.OVERWRITE)
    assert {edit.key for edit in done.plan.edits} <= present.keys()
    assert model.stat().st_size == size
    values = observe(model, tokens=TOKENS, settings=SETTINGS)
    undo(model)
    assert model.read_bytes() == original
    rewrite(model, request, strategy=Strategy.COPY)
    whole = observe(model, tokens=TOKENS, settings=SETTINGS)
    assert values.logits == whole.logits
    assert values.n_ctx_train == whole.n_ctx_train == TARGET
    # The length before the extension counts with a share of YaRN only.
    for one, other in zip(values.rope_nodes, whole.rope_nodes, strict=True):
        assert one.ext_factor == 0
        assert replace(one, n_ctx_orig=other.n_ctx_orig) == other


@every_architecture
@every_method
def test_llama_cpp_reads_the_plan_from_the_file_as_from_overrides(
    model: Path, method: Method
) -> None:
    original = model.read_bytes()
    native = observe(model, tokens=TOKENS, settings=SETTINGS)
    layers = facts_of(model).layers
    made = rewrite(model, PlanRequest(target_length=TARGET, method=method)).plan
    written = observe(model, tokens=TOKENS, settings=SETTINGS)
    assert written.n_ctx_train == TARGET
    assert len(verify_file(model, made)) == 2

    undo(model)
    assert model.read_bytes() == original
    overrides = {edit.key: edit.after for edit in made.edits}
    overridden = observe(model, tokens=TOKENS, settings=SETTINGS, kv_overrides=overrides)  # type: ignore[arg-type]
    assert written.logits == overridden.logits
    assert written.rope_nodes == overridden.rope_nodes
    assert written.logits != native.logits
    for before, after in zip(native.rope_nodes, written.rope_nodes, strict=True):
        moved = (before.freq_base, before.freq_scale) != (after.freq_base, after.freq_scale)
        assert moved == layers[after.layer].moves
    assert observe(model, tokens=TOKENS, settings=SETTINGS).logits == native.logits


@pytest.mark.parametrize("metadata_first", [False, True])
def test_llama_cpp_runs_a_split_model_before_and_after_as_it_runs_the_whole(
    random_models: Callable[[str], Path], tmp_path: Path, metadata_first: bool
) -> None:
    whole = tmp_path / "whole.gguf"
    whole.write_bytes(random_models("llama").read_bytes())
    first, *_ = split_model(whole, tmp_path / "split", parts=3, metadata_first=metadata_first)
    original = first.read_bytes()

    def logits(path: Path) -> object:
        return observe(path, tokens=TOKENS, settings=SETTINGS).logits

    assert logits(first) == logits(whole)
    for path in (whole, first):
        rewrite(path, PlanRequest(target_length=TARGET, method=Method.YARN))
    assert logits(first) == logits(whole)
    undo(first)
    assert first.read_bytes() == original


@every_architecture
def test_the_kv_cache_has_the_size_that_planning_says(model: Path, architecture: str) -> None:
    layers = facts_of(model).layers
    for kind in CacheType:
        for length in (300, 2048, 4096):
            settings = ContextSettings(
                n_ctx=length, type_k=kind.label, type_v=kind.label, swa_full=False
            )
            seen = observe(model, tokens=(0,), settings=settings)
            held = sum(tensor.size for tensor in seen.cache_tensors)
            assert kv_cache_bytes(layers, length, kind) == held
            logged = sum(line.mib_k + line.mib_v for line in cache_lines(seen))
            assert held / 2**20 == pytest.approx(logged, abs=0.03)  # four figures of two decimals


def test_verification_refuses_a_file_that_holds_something_else(
    random_models: Callable[[str], Path], tmp_path: Path
) -> None:
    path = tmp_path / "llama.gguf"
    path.write_bytes(random_models("llama").read_bytes())
    other = plan(facts_of(path), PlanRequest(target_length=TARGET, method=Method.YARN))
    rewrite(path, PlanRequest(target_length=TARGET, method=Method.NTK))
    with pytest.raises(EditError) as caught:
        verify_file(path, other)
    assert caught.value.code == "not_verified"
    assert "rope.scaling" in caught.value.message
