"""What PyTorch computes, llama.cpp computes from the GGUF file, with the same tokens of a text."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

pytest.importorskip("torch", reason="needs PyTorch 2.13.0")
pytest.importorskip("tokenizers", reason="needs tokenizers 0.23.3")

import torch

import ggufext
import language_model
import passkey_models
import train_passkey
from ggufext.llama.rope_nodes import observe
from ggufext.llama.settings import ContextSettings
from llama_here import needs_llama_cpp
from retrieval import Reader
from small_llama import Model, Shape, Vocabulary, write_gguf
from standard_library import Part, sources

if TYPE_CHECKING:
    from pathlib import Path

    from tokenizers import Tokenizer

needs_llama_cpp()

TOKENS = [1, *[(7 * i * i + 3 * i) % 500 for i in range(299)]]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    texts = [source.text for source in sources() if source.part is Part.TUNING]
    return language_model.train_tokenizer(texts)


def shapes() -> list[Shape]:
    passkey = [passkey_models.shape(base, head) for base in (500, 100_000) for head in (16, 64)]
    return [train_passkey.SHAPE, *passkey, language_model.shape(10_000)]


def vocabulary_of(shape: Shape, tokenizer: Tokenizer) -> Vocabulary:
    if shape.vocabulary == language_model.VOCABULARY:
        return language_model.vocabulary(tokenizer)
    return train_passkey.vocabulary()


def written(shape: Shape, tokenizer: Tokenizer, folder: Path) -> tuple[Model, Path]:
    torch.manual_seed(1)
    model, path = Model(shape), folder / "model.gguf"
    with torch.no_grad():
        # Away from the uniform logits of fresh weights.
        for parameter in model.parameters():
            parameter.mul_(4 if parameter.dim() > 1 else 1)
    vocabulary = vocabulary_of(shape, tokenizer)
    write_gguf(model, path, name="test", description="A test.", vocabulary=vocabulary)
    return model, path


@pytest.mark.parametrize("shape", shapes(), ids=lambda s: f"{s.freq_base:g}-{s.head_dim}")
def test_logits_through_llama_cpp_are_those_of_pytorch(
    shape: Shape, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    model, path = written(shape, tokenizer, tmp_path)
    with torch.no_grad():
        expected = model(torch.tensor([TOKENS]))[0]
    settings = ContextSettings(n_ctx=512, type_k="f32", type_v="f32", flash_attn_type=0)
    logits = observe(path, tokens=TOKENS, settings=settings).logits[0]
    found = torch.frombuffer(bytearray(logits), dtype=torch.float32).view_as(expected)
    assert expected.std() > 0.1
    assert (found - expected).abs().max() < 1e-3


def test_llama_cpp_splits_a_text_as_the_tokenizer_does(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    _, path = written(language_model.shape(10_000), tokenizer, tmp_path)
    with Reader(path, n_ctx=256, threads=1) as reader:
        for source in sources():
            if source.part is Part.TEST:
                ids = tokenizer.encode(source.text).ids
                assert reader.tokenize(source.text) == [language_model.BOS, *ids], source.name


def test_a_plan_knows_base_length_and_heads(tokenizer: Tokenizer, tmp_path: Path) -> None:
    _, path = written(language_model.shape(10_000), tokenizer, tmp_path)
    made = ggufext.plan(path, ggufext.PlanRequest(target_length=2048))
    assert made.train_length.value == 512
    assert made.freq_base.after == 40_000
    assert len(made.inv_freq) == 32
