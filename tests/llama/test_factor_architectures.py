"""Which architectures take factor tensors, as architectures.json says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from ggufext.editing.rewrite import rewrite, undo
from ggufext.errors import EngineError
from ggufext.header.architectures import FactorSupport, architecture, architecture_names
from ggufext.header.frequencies import ROPE_FACTORS_LONG, ROPE_FREQS
from ggufext.llama.expectation import verify_file
from ggufext.llama.rope_nodes import observe
from ggufext.llama.settings import ContextSettings
from ggufext.opened.model import facts_of
from ggufext.planning.methods import Method
from ggufext.planning.request import PlanRequest
from llama_here import needs_llama_cpp
from random_architectures import ARCHITECTURES
from random_model import write_random_model

if TYPE_CHECKING:
    from pathlib import Path

needs_llama_cpp()


TRAINED = 512
TOKENS = tuple((7 * i * i + 3 * i) % 250 for i in range(200))

SUPPORT = {name: architecture(name).factor_support for name in architecture_names()}
LONG = {FactorSupport.BY_TYPE, FactorSupport.LONG_SHORT}
FREQS = {FactorSupport.BY_TYPE, FactorSupport.ROPE_FREQS}


def model(folder: Path, name: str) -> Path:
    try:
        path = write_random_model(folder / "model.gguf", name, context=TRAINED)
    except KeyError:
        pytest.skip(f"no random model of {name}")
    if facts_of(path).factors:
        pytest.skip(f"{name} brings factors of its own")
    return path


def logits(path: Path) -> tuple[bytes, ...]:
    return observe(path, tokens=TOKENS, settings=ContextSettings(n_ctx=TRAINED)).logits


@pytest.mark.parametrize("name", [name for name, support in SUPPORT.items() if support in LONG])
def test_long_factors_act_above_the_training_length_only(tmp_path: Path, name: str) -> None:
    path = model(tmp_path, name)
    original, native = path.read_bytes(), logits(path)
    made = rewrite(path, PlanRequest(target_length=4 * TRAINED, keep_short=True, force=True)).plan
    assert logits(path) == native
    assert "long factors above the original length only" in verify_file(path, made)[1]
    undo(path)
    assert path.read_bytes() == original


@pytest.mark.parametrize("name", [name for name, support in SUPPORT.items() if support in FREQS])
def test_rope_freqs_act_at_every_length(tmp_path: Path, name: str) -> None:
    path = model(tmp_path, name)
    native = logits(path)
    made = rewrite(
        path, PlanRequest(target_length=4 * TRAINED, method=Method.LLAMA3, force=True)
    ).plan
    if not made.tensor_edits:
        pytest.skip(f"no layer of {name} that sees the whole context rotates")
    assert logits(path) != native
    assert len(verify_file(path, made)) == 2


@pytest.mark.parametrize("tensor", [ROPE_FREQS, ROPE_FACTORS_LONG])
@pytest.mark.parametrize(
    "name", [name for name in ARCHITECTURES if SUPPORT[name] is FactorSupport.NONE]
)
def test_a_file_of_another_architecture_does_not_load_with_such_a_tensor(
    tmp_path: Path, name: str, tensor: str
) -> None:
    path = model(tmp_path, name)
    pairs = len(facts_of(path).inv_freq)
    write_random_model(path, name, tensors={tensor: np.full(pairs, 2.0, dtype=np.float32)})
    with pytest.raises(EngineError) as caught:
        observe(path, tokens=(0,))
    assert caught.value.code == "model_not_loaded"
    assert "wrong number of tensors" in caught.value.message
