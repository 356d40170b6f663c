from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from ggufext.audit.engines.llama_cpp import LlamaCpp
from ggufext.audit.task.passkey import check_keys
from ggufext.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    Pieces = Callable[[Sequence[str]], list[list[bytes]]]


def split_at(pattern: str) -> Pieces:
    """A tokenizer whose tokens are the matches of a pattern."""
    return lambda texts: [[piece.encode() for piece in re.findall(pattern, text)] for text in texts]


@pytest.mark.parametrize(
    "pattern",
    [r" ?\w+|[^\w ]", r" ?[a-zA-Z]+|\d| |[^\w ]", r" ?[a-zA-Z]+| ?\d{1,3}|[^\w ]", r" |[^ ]"],
    ids=["whole words", "digit by digit", "three digits", "characters"],
)
def test_tokenizers_that_keep_keys_apart_are_accepted(pattern: str) -> None:
    check_keys(split_at(pattern))


@pytest.mark.parametrize(
    "pattern",
    [r" ?[^ ]+", r" ?[a-zA-Z]+ \d|\d|[^\d]", r" ?[a-zA-Z]+|[^\w ]| "],
    ids=["with the full stop", "with the word before", "digits lost"],
)
def test_tokenizers_that_merge_or_lose_a_key_are_refused(pattern: str) -> None:
    with pytest.raises(EngineError, match="no tokens of its own") as refused:
        check_keys(split_at(pattern))
    assert refused.value.code == "cannot_be_audited"


def test_tokenizer_that_splits_keys_differently_in_the_answer_is_refused() -> None:
    with pytest.raises(EngineError, match="differently"):
        # Two digits a token, but only behind a letter and a space.
        check_keys(split_at(r"(?<=[a-z]) \d{2}|(?<!\d) \d{3}|\d| |[^\d ]"))


def test_shipped_model_keeps_keys_apart(passkey_model: Path) -> None:
    engine = LlamaCpp(passkey_model)
    check_keys(engine.pieces, path=passkey_model)
    engine.close()


def test_every_word_of_the_wording_is_one_token_of_the_shipped_model(passkey_model: Path) -> None:
    import random

    from ggufext.audit.task import wording

    engine, rng = LlamaCpp(passkey_model), random.Random(0)
    lines = [wording.sentence(rng) for _ in range(500)]
    lines += [wording.ANNOUNCEMENT, wording.SWEEP_ANNOUNCEMENT, wording.QUESTION]
    lines += [wording.sweep_question(label) for label in wording.LABELS]
    expected = [len(re.findall(r" \w+|[^\w ]", line)) for line in lines]
    assert engine.counts(lines) == expected
    engine.close()
