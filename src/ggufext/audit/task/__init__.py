"""What is asked, and what an answer is worth: a task makes questions and judges answers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from pathlib import Path

    from ggufext.audit.request import DepthBin, Mode
    from ggufext.audit.task.answers import Judgement

#: Token counts of texts, each as it stands behind a full stop.
Counts = Callable[[Sequence[str]], list[int]]

#: Bytes of every token of texts, each as it stands behind a full stop.
Pieces = Callable[[Sequence[str]], list[list[bytes]]]


@dataclass(frozen=True, slots=True)
class PromptPlan:
    """What a prompt set is made from, beside the tokenizer.

    Attributes
    ----------
    mode : Mode
    lengths : tuple of int
        Tokens of prompt and answer, rising.
    depths : tuple of DepthBin
        Rising.
    texts : int
        Texts, each asked once in every cell.
    seed : int
    answer_tokens : int
        Kept free for the answer.
    lead, trail : int
        Tokens before and behind the prompt: BOS and the chat template.
    chat : bool
        Whether the answer is a turn of its own, or continues a begun sentence.
    split : int
        Sweep: questions start at multiples of this many tokens, so that reuse is exact.
    """

    mode: Mode
    lengths: tuple[int, ...]
    depths: tuple[DepthBin, ...]
    texts: int
    seed: int
    answer_tokens: int
    lead: int
    trail: int
    chat: bool
    split: int


@dataclass(frozen=True, slots=True)
class Question:
    """One prompt and its key.

    Attributes
    ----------
    text, length, depth, distance
        See `ggufext.audit.run.records.Trial`; depth is the middle of the bin.
    key : str
    parts : tuple of str
        The prompt: parts that begin with a space and are tokenized each on its own.
    tokens : int
        Of the prompt with what surrounds it, without the answer.
    key_start : int
        Tokens before the line that states the key.
    stop : str
        A regular expression: what an answer without its reasoning matches in full when no further
        token can change what it is worth.
    """

    text: int
    length: int
    depth: float
    distance: int
    key: str
    parts: tuple[str, ...]
    tokens: int
    key_start: int
    stop: str


class Task(Protocol):
    """Something to ask a model for."""

    def questions(self, plan: PromptPlan, counts: Counts) -> tuple[Question, ...]:
        """All questions in the order to ask them: text by text.

        Raises
        ------
        EngineError
            ``length_too_short``: a length has no room for the prompt itself.
        """

    def check_tokenizer(self, pieces: Pieces, path: Path) -> None:
        """Refuse a tokenizer with which a hit or a miss would mean nothing.

        Raises
        ------
        EngineError
        """

    def answer_tokens(self, counts: Counts) -> int:
        """Tokens of the longest answer that goes on with the prompt's last sentence."""

    def judge(self, question: Question, answer: str) -> Judgement:
        """What an answer is worth."""


def prompts_hash(questions: Sequence[Question]) -> str:
    """SHA-256 of all prompts and keys in order."""
    digest = hashlib.sha256()
    for question in questions:
        digest.update("".join((*question.parts, "\0", question.key, "\0")).encode())
    return digest.hexdigest()
