"""The shipped model, extended: it finds keys beyond its training length that it lost before."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

import passkey_task
from ggufext.editing.rewrite import rewrite, undo
from ggufext.llama.rope_nodes import observe
from ggufext.llama.settings import ContextSettings
from ggufext.planning.methods import Method
from ggufext.planning.request import PlanRequest
from llama_here import needs_llama_cpp
from retrieval import measure, pooled

needs_llama_cpp()

MODEL = Path(passkey_task.__file__).with_name("passkey-Q8_0.gguf")
TRAINING = 256
TARGET = 1024
TOKENS = tuple((7 * i * i + 3 * i) % 500 for i in range(TARGET))

METHODS = (Method.GAMMA, Method.NTK, Method.YARN, Method.LINEAR)
every_method = pytest.mark.parametrize("method", METHODS, ids=lambda m: m.value)


def accuracy(path: Path, length: int) -> float:
    return pooled(measure(path, lengths=[length], depths=6, trials=4, seed=11))[0].accuracy


@cache
def native_accuracy(length: int) -> float:
    return accuracy(MODEL, length)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "passkey.gguf"
    path.write_bytes(MODEL.read_bytes())
    return path


@every_method
def test_logits_are_those_of_the_same_settings_as_overrides(model: Path, method: Method) -> None:
    settings = ContextSettings(n_ctx=TARGET, n_batch=TARGET)
    made = rewrite(model, PlanRequest(target_length=TARGET, method=method)).plan
    written = observe(model, tokens=TOKENS, settings=settings)
    overrides = {edit.key: edit.after for edit in made.edits}
    overridden = observe(MODEL, tokens=TOKENS, settings=settings, kv_overrides=overrides)  # type: ignore[arg-type]
    assert written.n_ctx_train == TARGET
    assert written.logits == overridden.logits


@pytest.mark.parametrize("method", [Method.GAMMA, Method.NTK, Method.YARN], ids=lambda m: m.value)
def test_extended_the_model_finds_keys_that_it_lost(model: Path, method: Method) -> None:
    rewrite(model, PlanRequest(target_length=TARGET, method=method))
    for length in (2 * TRAINING, 4 * TRAINING):
        assert accuracy(model, length) >= native_accuracy(length) + 0.3


def test_undo_gives_the_native_model_back(model: Path) -> None:
    rewrite(model, PlanRequest(target_length=TARGET))
    undo(model)
    assert model.read_bytes() == MODEL.read_bytes()
