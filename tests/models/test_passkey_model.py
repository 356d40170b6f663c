"""The shipped model does what its card says; measured through llama.cpp on fixed prompts."""

from __future__ import annotations

import random
import string
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gguf
import pytest
from hypothesis import given
from hypothesis import strategies as st

import passkey_task as task
from ggufext.errors import EngineError
from llama_here import needs_llama_cpp
from measure_card import extension
from retrieval import Reader, measure, pooled

if TYPE_CHECKING:
    from collections.abc import Iterator

needs_llama_cpp()

MODELS = sorted(Path(task.__file__).parent.glob("*.gguf"))
TRAINING_LENGTH = 256
SEED = 7
ASCII = string.ascii_letters + string.digits + string.punctuation + " \n\t"

EXPECTED_METADATA = {
    "general.architecture": "llama",
    "general.name": "ggufext passkey",
    "general.license": "MIT",
    "llama.context_length": TRAINING_LENGTH,
    "llama.block_count": 4,
    "llama.embedding_length": 128,
    "llama.feed_forward_length": 384,
    "llama.attention.head_count": 4,
    "llama.attention.head_count_kv": 4,
    "llama.rope.freq_base": 500.0,
    "llama.rope.dimension_count": 32,
    "llama.vocab_size": 544,
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.pre": "llama-bpe",
    "tokenizer.ggml.bos_token_id": 1,
    "tokenizer.ggml.eos_token_id": 2,
    "tokenizer.ggml.add_bos_token": True,
}

every_model = pytest.mark.parametrize("model", MODELS, ids=lambda path: path.stem)


# One thread: two of llama.cpp's wait for each other many times longer on a busy machine.
def accuracy(model: Path, length: int, overrides: dict[str, Any] | None = None) -> float:
    cells = measure(
        model, lengths=[length], depths=6, trials=4, seed=SEED, overrides=overrides, threads=1
    )
    return pooled(cells)[0].accuracy


@pytest.fixture(scope="module")
def reader() -> Iterator[Reader]:
    with Reader(MODELS[0], n_ctx=256, threads=1) as opened:
        yield opened


def test_q8_0_and_q4_0_are_shipped() -> None:
    assert [path.name for path in MODELS] == ["passkey-Q4_0.gguf", "passkey-Q8_0.gguf"]


@every_model
def test_file_is_smaller_than_one_and_a_half_megabytes(model: Path) -> None:
    assert model.stat().st_size < 1_500_000


@every_model
def test_metadata_says_what_the_model_is(model: Path) -> None:
    fields = gguf.GGUFReader(model).fields
    assert {key: fields[key].contents() for key in EXPECTED_METADATA} == EXPECTED_METADATA


@every_model
def test_metadata_holds_no_path(model: Path) -> None:
    fields = gguf.GGUFReader(model).fields.values()
    texts = [field.contents() for field in fields if field.types == [gguf.GGUFValueType.STRING]]
    assert not [text for text in texts if "/" in text or "\\" in text]


@every_model
def test_model_keys_lie_before_the_tokenizer_arrays(model: Path) -> None:
    keys = list(gguf.GGUFReader(model).fields)
    first_array = keys.index("tokenizer.ggml.tokens")
    assert all(keys.index(key) < first_array for key in keys if key.startswith("llama."))


@given(seed=st.integers(0, 2**32), keys=st.integers(0, 4))
def test_llama_cpp_turns_the_text_of_a_prompt_into_its_ids(
    reader: Reader, seed: int, keys: int
) -> None:
    rng = random.Random(seed)
    prompt = (
        task.sweep_prompts(rng, length=250, depths=[rng.random() for _ in range(keys)])[0]
        if keys
        else task.passkey_prompt(rng, length=250, depth=rng.random())
    )
    assert tuple(reader.tokenize(prompt.text)) == prompt.ids


words = st.sampled_from(task.WORDS)


@given(parts=st.lists(st.one_of(words, st.text(ASCII, max_size=5))))
def test_llama_cpp_tokenizes_ascii_text_as_we_do(reader: Reader, parts: list[str]) -> None:
    text = "".join(parts)
    assert reader.tokenize(text) == [task.BOS, *task.encode(text)]


@every_model
@pytest.mark.parametrize("length", [64, 128, 192, TRAINING_LENGTH])
def test_model_finds_keys_up_to_its_training_length(model: Path, length: int) -> None:
    assert accuracy(model, length) >= 0.95


@every_model
def test_model_loses_keys_at_four_times_its_training_length(model: Path) -> None:
    assert accuracy(model, 4 * TRAINING_LENGTH) <= 0.5


@every_model
@pytest.mark.parametrize("method", ["ntk", "gamma", "yarn"])
def test_extension_finds_keys_that_the_native_model_loses(model: Path, method: str) -> None:
    target = 2 * TRAINING_LENGTH
    assert accuracy(model, target) <= 0.5
    assert accuracy(model, target, dict(extension(method, target))) >= 0.75


@every_model
@pytest.mark.parametrize("keys", [2, 4, 8])
def test_model_tells_labelled_keys_apart(model: Path, keys: int) -> None:
    cells = measure(
        model, lengths=[TRAINING_LENGTH], depths=6, trials=4, keys=keys, seed=SEED, threads=1
    )
    assert pooled(cells)[0].accuracy >= 0.9


@every_model
def test_linear_extension_needs_fine_tuning(model: Path) -> None:
    target = 4 * TRAINING_LENGTH
    assert accuracy(model, target, dict(extension("linear", target))) <= 0.2


def test_file_that_llama_cpp_cannot_load_is_an_engine_error(tmp_path: Path) -> None:
    path = tmp_path / "broken.gguf"
    path.write_bytes(MODELS[0].read_bytes()[:1000])
    with pytest.raises(EngineError, match="failed to load model") as refused:
        Reader(path, n_ctx=256)
    assert refused.value.code == "model_not_loaded"
