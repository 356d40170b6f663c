"""A draft model beside its target: what is refused before either is written."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gguf_bytes import SMALLEST_LLAMA, SMALLEST_TENSORS, U32, gguf_bytes
from ggufext.editing.draft import check_draft
from ggufext.errors import EditError, HeaderError, PlanError
from ggufext.header.header import read_header
from ggufext.header.vocabulary import difference
from ggufext.planning.methods import Method
from ggufext.planning.request import PlanRequest

if TYPE_CHECKING:
    from pathlib import Path

WORDS = ["<unk>", "<s>", "</s>", "<a>", "<b>", *(f"word{i}" for i in range(395))]
VOCABULARY: dict[str, object] = {
    "tokenizer.ggml.model": "llama",
    "tokenizer.ggml.tokens": WORDS,
    "tokenizer.ggml.scores": [0.5] * 400,
    "tokenizer.ggml.bos_token_id": U32(1),
}
TWICE = PlanRequest(target_length=8192, method=Method.YARN)


def model(path: Path, **keys: object) -> Path:
    said = {key.replace("__", "."): value for key, value in keys.items()}
    path.write_bytes(gguf_bytes({**SMALLEST_LLAMA, **VOCABULARY, **said}, SMALLEST_TENSORS))
    return path


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return model(tmp_path / "target.gguf", llama__context_length=U32(4096))


def test_two_models_of_one_vocabulary_are_both_extended_the_draft_first(
    target: Path, tmp_path: Path
) -> None:
    draft = model(tmp_path / "draft.gguf", llama__context_length=U32(2048))
    before = target.read_bytes(), draft.read_bytes()
    found = check_draft(target, draft, TWICE)
    assert (found.tokens, found.extended) == (400, (draft, target))
    assert (target.read_bytes(), draft.read_bytes()) == before


def test_the_one_that_was_trained_on_enough_is_left_alone(target: Path, tmp_path: Path) -> None:
    long = model(tmp_path / "long.gguf", llama__context_length=U32(32768))
    assert check_draft(target, long, TWICE).extended == (target,)
    assert check_draft(long, target, TWICE).extended == (target,)
    other = model(tmp_path / "other.gguf", llama__context_length=U32(8192))
    with pytest.raises(PlanError) as caught:
        check_draft(long, other, TWICE)
    assert caught.value.code == "target_not_longer"


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"tokenizer__ggml__tokens": [*WORDS[:-1], "other"]}, "token 399 is 'other' in the draft"),
        ({"tokenizer__ggml__bos_token_id": U32(2)}, "bos_token_id is 2 in the draft and 1"),
        (
            {
                "tokenizer__ggml__tokens": WORDS[:271],
                "tokenizer__ggml__scores": [0.5] * 271,
            },
            "the draft has 271 tokens and the target 400",
        ),
    ],
)
def test_a_draft_of_another_vocabulary_is_refused(
    keys: dict[str, object], said: str, target: Path, tmp_path: Path
) -> None:
    draft = model(tmp_path / "draft.gguf", **keys)
    with pytest.raises(EditError) as caught:
        check_draft(target, draft, TWICE)
    assert caught.value.code == "draft_unusable"
    assert caught.value.path == draft
    assert said in caught.value.message


def test_llama_cpp_lets_the_first_tokens_and_the_length_differ_a_little(
    target: Path, tmp_path: Path
) -> None:
    draft = model(
        tmp_path / "draft.gguf",
        tokenizer__ggml__tokens=["<pad>", *WORDS[1:], *(f"more{i}" for i in range(128))],
        tokenizer__ggml__scores=[0.5] * 528,
    )
    assert difference(read_header(target), read_header(draft)) is None


def test_the_target_is_no_draft_of_itself(target: Path, tmp_path: Path) -> None:
    (tmp_path / "link.gguf").symlink_to(target)
    for draft in (target, tmp_path / "link.gguf"):
        with pytest.raises(EditError) as caught:
            check_draft(target, draft, TWICE)
        assert caught.value.code == "draft_unusable"


def test_what_the_draft_cannot_take_is_refused_before_the_target_is_written(
    target: Path, tmp_path: Path
) -> None:
    draft = model(tmp_path / "draft.gguf", general__architecture="unheard-of")
    before = target.read_bytes()
    with pytest.raises(HeaderError):
        check_draft(target, draft, TWICE)
    assert target.read_bytes() == before
