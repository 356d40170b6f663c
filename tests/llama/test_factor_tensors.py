"""Factor tensors that rewrite puts into a file, seen in llama.cpp's graph and logits."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from ggufext.editing.rewrite import rewrite, undo
from ggufext.errors import EditError
from ggufext.header.architectures import FactorSupport
from ggufext.header.frequencies import (
    ROPE_FACTORS_LONG,
    ROPE_FACTORS_SHORT,
    ROPE_FREQS,
    inverse_frequencies,
    llama3_factors,
)
from ggufext.llama.expectation import verify_file
from ggufext.llama.rope_nodes import observe
from ggufext.llama.settings import ContextSettings
from ggufext.opened.model import facts_of
from ggufext.planning.methods import Method, as_float32, llama3_parameters
from ggufext.planning.plan import plan
from ggufext.planning.request import Factors, PlanRequest, Recipe
from llama_here import needs_llama_cpp
from observed import logits_array
from random_model import MetadataValue, write_random_model

if TYPE_CHECKING:
    from pathlib import Path

    from ggufext.llama.rope_nodes import Observation
    from ggufext.planning.result import Plan

needs_llama_cpp()


#: Training length of the models here, and the smallest context above it.
TRAINED = 512
LONGER = TRAINED + 256
TARGET = 4 * TRAINED
TOKENS = tuple((7 * i * i + 3 * i) % 250 for i in range(300))

METHODS = (Method.GAMMA, Method.NTK, Method.YARN, Method.LINEAR, Method.LLAMA3)
takes_long = pytest.mark.parametrize("architecture", ["llama", "phi3"])
every_method = pytest.mark.parametrize("method", METHODS, ids=lambda m: m.value)


@pytest.fixture
def model(architecture: str, tmp_path: Path) -> Path:
    return write_random_model(tmp_path / "model.gguf", architecture, context=TRAINED)


def observed(path: Path, n_ctx: int, overrides: dict[str, Any] | None = None) -> Observation:
    settings = ContextSettings(n_ctx=n_ctx)
    return observe(path, tokens=TOKENS, settings=settings, kv_overrides=overrides)


def factors_seen(observation: Observation) -> set[tuple[float, ...] | None]:
    return {node.factors for node in observation.rope_nodes}


def extended(path: Path, **request: Any) -> Plan:
    return rewrite(path, PlanRequest(target_length=TARGET, force=True, **request)).plan


@takes_long
@every_method
def test_keep_short_leaves_contexts_up_to_the_training_length_bit_identical(
    model: Path, method: Method
) -> None:
    native = observed(model, TRAINED)
    extended(model, method=method, keep_short=True)
    kept = observed(model, TRAINED)
    assert kept.logits == native.logits
    assert factors_seen(kept) == {None}


@takes_long
@every_method
def test_keep_short_rotates_longer_contexts_as_the_method_does(model: Path, method: Method) -> None:
    facts = replace(facts_of(model), factor_support=FactorSupport.BY_TYPE)
    plain = plan(facts, PlanRequest(target_length=TARGET, method=method)).inv_freq
    made = extended(model, method=method, keep_short=True)
    longer = observed(model, LONGER)
    (factors,) = factors_seen(longer)
    assert factors == made.long_factors
    assert factors is not None
    effective = [w / f for w, f in zip(facts.inv_freq, factors, strict=True)]
    assert effective == pytest.approx(plain, rel=1e-6)
    assert {node.attn_factor for node in longer.rope_nodes} == {1.0}


@pytest.mark.parametrize("architecture", ["llama"])
def test_long_factors_of_a_base_give_the_logits_of_that_base(model: Path) -> None:
    extended(model, method=Method.GAMMA)
    base = logits_array(observed(model, LONGER))
    extended(model, method=Method.GAMMA, keep_short=True)
    packed = logits_array(observed(model, LONGER))
    native = logits_array(observed(model, TRAINED))
    # Float32 angles differ in the last bits; the rotation without an extension is far away.
    assert np.abs(packed - base).max() < 0.02 * np.abs(native - base).max()


@takes_long
@every_method
def test_verification_sees_both_sets_of_a_kept_short_file(model: Path, method: Method) -> None:
    made = extended(model, method=method, keep_short=True)
    said = verify_file(model, made)
    assert "1 tensor of factors" in said[0]
    assert "long factors above the original length only" in said[1]


@pytest.mark.parametrize("architecture", ["llama"])
def test_llama3_factors_reach_every_layer_in_every_context(model: Path) -> None:
    made = extended(model, method=Method.LLAMA3)
    ((name, factors),) = [(edit.name, edit.after) for edit in made.tensor_edits]
    assert name == ROPE_FREQS
    for n_ctx in (TRAINED, LONGER):
        assert factors_seen(observed(model, n_ctx)) == {factors}
    assert len(verify_file(model, made)) == 2


@takes_long
def test_longrope_takes_short_and_long_factors_and_the_attention_factor(model: Path) -> None:
    long = tuple(as_float32(1.0 + 0.25 * i) for i in range(16))
    short = (1.0,) * 8 + (1.5,) * 8
    recipe = Recipe(Method.LONGROPE, factors=Factors(long, short, 1.25))
    made = extended(model, method=Method.LONGROPE, recipe=recipe)
    for n_ctx, expected in ((TRAINED, short), (LONGER, long)):
        seen = observed(model, n_ctx)
        assert factors_seen(seen) == {expected}
        assert {node.attn_factor for node in seen.rope_nodes} == {1.25}
    assert len(verify_file(model, made)) == 2


@pytest.fixture
def llama_31(tmp_path: Path) -> Path:
    """A model with the factors of Llama 3.1 in small, as converters write them."""
    factors = llama3_factors(inverse_frequencies(10_000.0, 32), 4.0, 128)
    tensors = {ROPE_FREQS: np.array(factors, dtype=np.float32)}
    return write_random_model(tmp_path / "model.gguf", context=TRAINED, tensors=tensors)


def test_rope_freqs_are_made_again_in_place(llama_31: Path) -> None:
    original = llama_31.read_bytes()
    made = extended(llama_31, method=Method.LLAMA3)
    (factors,) = factors_seen(observed(llama_31, LONGER))
    assert factors is not None
    found = llama3_parameters(inverse_frequencies(10_000.0, 32), factors)
    assert found == (16.0, 128)
    assert len(verify_file(llama_31, made)) == 2
    undo(llama_31)
    assert llama_31.read_bytes() == original


@pytest.mark.parametrize("method", [Method.GAMMA, Method.NTK, Method.LINEAR, Method.YARN])
def test_methods_on_rope_freqs_keep_the_tensor(llama_31: Path, method: Method) -> None:
    native = factors_seen(observed(llama_31, LONGER))
    made = extended(llama_31, method=method)
    assert factors_seen(observed(llama_31, LONGER)) == native
    assert len(verify_file(llama_31, made)) == 2


@pytest.fixture
def phi_3_128k(tmp_path: Path) -> Path:
    """A longrope model in small: trained on four times its original length."""
    tensors = {
        ROPE_FACTORS_LONG: np.linspace(1, 6, 16, dtype=np.float32),
        ROPE_FACTORS_SHORT: np.linspace(1, 1.5, 16, dtype=np.float32),
    }
    keys: dict[str, MetadataValue] = {
        "phi3.rope.scaling.type": "longrope",
        "phi3.rope.scaling.original_context_length": 256,
        "phi3.rope.scaling.attn_factor": 1.19,
    }
    path = tmp_path / "model.gguf"
    return write_random_model(path, "phi3", context=1024, metadata=keys, tensors=tensors)


@pytest.mark.parametrize("method", [Method.GAMMA, Method.NTK, Method.LINEAR, Method.LLAMA3])
def test_a_longrope_model_gets_new_long_factors_and_keeps_short_contexts(
    phi_3_128k: Path, method: Method
) -> None:
    original = phi_3_128k.read_bytes()
    short = observe(phi_3_128k, tokens=TOKENS[:200], settings=ContextSettings(n_ctx=256))
    before = facts_of(phi_3_128k)
    made = rewrite(phi_3_128k, PlanRequest(target_length=4096, method=method, force=True)).plan
    seen = observed(phi_3_128k, 512)
    (factors,) = factors_seen(seen)
    assert factors == made.long_factors
    assert factors != dict(before.factors)[ROPE_FACTORS_LONG]
    after = observe(phi_3_128k, tokens=TOKENS[:200], settings=ContextSettings(n_ctx=256))
    assert after.logits == short.logits
    assert len(verify_file(phi_3_128k, made)) == 2
    undo(phi_3_128k)
    assert phi_3_128k.read_bytes() == original


def test_a_plan_over_an_earlier_one_starts_from_the_original_factors(phi_3_128k: Path) -> None:
    once = rewrite(phi_3_128k, PlanRequest(target_length=4096, force=True)).plan
    rewrite(phi_3_128k, PlanRequest(target_length=2048, method=Method.LINEAR, force=True))
    again = rewrite(phi_3_128k, PlanRequest(target_length=4096, force=True)).plan
    assert again.long_factors == once.long_factors


@pytest.mark.parametrize(
    ("native", "target"),
    [
        pytest.param({"type": "yarn", "factor": 4.0, "original_context_length": 128}, Method.YARN),
        pytest.param({"type": "linear", "factor": 4.0}, Method.LINEAR),
    ],
    ids=["yarn on yarn", "linear on linear"],
)
def test_scaling_in_kind_reaches_the_graph(
    tmp_path: Path, native: dict[str, Any], target: Method
) -> None:
    keys = {f"llama.rope.scaling.{name}": value for name, value in native.items()}
    path = write_random_model(tmp_path / "model.gguf", context=TRAINED, metadata=keys)
    made = rewrite(path, PlanRequest(target_length=TARGET, method=target)).plan
    assert made.freq_scale_factor == 16.0
    assert len(verify_file(path, made)) == 2
    node = observed(path, LONGER).rope_nodes[0]
    assert node.freq_scale == 1 / 16
    assert node.n_ctx_orig == 128


@pytest.mark.parametrize("architecture", ["llama"])
def test_verification_refuses_other_factors_than_planned(model: Path) -> None:
    other = plan(
        facts_of(model), PlanRequest(target_length=TARGET, method=Method.NTK, keep_short=True)
    )
    extended(model, method=Method.YARN, keep_short=True)
    with pytest.raises(EditError) as caught:
        verify_file(model, other)
    assert caught.value.code == "not_verified"
    assert ROPE_FACTORS_LONG in caught.value.message


@pytest.fixture
def phi_3_without_border(tmp_path: Path) -> Path:
    """Long factors with an original length of 0, which llama.cpp takes at its word."""
    tensors = {
        ROPE_FACTORS_LONG: np.linspace(1, 8, 16, dtype=np.float32),
        ROPE_FACTORS_SHORT: np.linspace(1, 2, 16, dtype=np.float32),
    }
    keys: dict[str, MetadataValue] = {"phi3.rope.scaling.original_context_length": 0}
    path = tmp_path / "model.gguf"
    return write_random_model(path, "phi3", context=1024, metadata=keys, tensors=tensors)


def test_an_original_length_of_0_lets_the_new_long_factors_act_everywhere(
    phi_3_without_border: Path,
) -> None:
    path = phi_3_without_border
    assert factors_seen(observed(path, 512)) == {dict(facts_of(path).factors)[ROPE_FACTORS_LONG]}
    made = rewrite(path, PlanRequest(target_length=2048)).plan
    assert {*factors_seen(observed(path, 512)), *factors_seen(observed(path, 2048))} == {
        made.long_factors
    }
    assert len(verify_file(path, made)) == 2


def test_keep_short_leaves_such_contexts_bit_identical(phi_3_without_border: Path) -> None:
    path = phi_3_without_border
    original = path.read_bytes()
    native = observed(path, 1024)
    made = rewrite(path, PlanRequest(target_length=2048, keep_short=True)).plan
    assert observed(path, 1024).logits == native.logits
    assert factors_seen(observed(path, 1280)) == {made.long_factors}
    assert made.long_factors != made.short_factors
    assert len(verify_file(path, made)) == 2
    undo(path)
    assert path.read_bytes() == original


def test_long_factors_above_the_target_are_left_alone(tmp_path: Path) -> None:
    tensors = {
        ROPE_FACTORS_LONG: np.linspace(1, 8, 16, dtype=np.float32),
        ROPE_FACTORS_SHORT: np.linspace(1, 2, 16, dtype=np.float32),
    }
    keys: dict[str, MetadataValue] = {"phi3.rope.scaling.original_context_length": 1024}
    path = tmp_path / "model.gguf"
    write_random_model(path, "phi3", context=512, metadata=keys, tensors=tensors)
    before = [observed(path, n_ctx) for n_ctx in (512, 1024, 1280)]
    made = rewrite(path, PlanRequest(target_length=1024)).plan
    assert [edit.key for edit in made.edits] == ["phi3.context_length"]
    after = [observed(path, n_ctx) for n_ctx in (512, 1024, 1280)]
    assert [each.logits for each in after] == [each.logits for each in before]
    assert after[0].n_ctx_train == 1024
    assert len(verify_file(path, made)) == 2


def test_raising_context_length_alone_does_not_move_the_border(tmp_path: Path) -> None:
    tensors = {ROPE_FACTORS_LONG: np.linspace(1, 8, 16, dtype=np.float32)}
    path = write_random_model(tmp_path / "model.gguf", "phi3", context=512, tensors=tensors)
    before = [observed(path, n_ctx).logits for n_ctx in (512, 768)]
    rewrite(path, PlanRequest(target_length=2048, train_length=2048))
    assert [observed(path, n_ctx).logits for n_ctx in (512, 768)] == before
