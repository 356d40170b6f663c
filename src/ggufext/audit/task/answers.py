"""Judging an answer: the first integer after any reasoning."""

from __future__ import annotations

import re
from dataclasses import dataclass

#: How models of today mark what they think before they answer.
_REASONING = re.compile(
    r"<(think|thinking|reasoning|thought)>.*?</\1>"
    r"|\[THINK\].*?\[/THINK\]"
    r"|<\|channel\|>analysis<\|message\|>.*?<\|end\|>",
    re.DOTALL,
)
_REASONING_STARTS = re.compile(
    r"<(?:think|thinking|reasoning|thought)>|\[THINK\]|<\|channel\|>analysis"
)
_INTEGER = re.compile(r"\d+")


@dataclass(frozen=True, slots=True)
class Judgement:
    """What an answer is worth; both None when its reasoning did not end.

    Attributes
    ----------
    hit : bool or None
        The first integer is the key.
    substring : bool or None
        The key stands anywhere.
    """

    hit: bool | None
    substring: bool | None


def judge(answer: str, key: str) -> Judgement:
    """Compare an answer with the key that was asked for."""
    said = _without_reasoning(answer)
    if said is None:
        return Judgement(None, None)
    integer = _INTEGER.search(said)
    return Judgement(integer is not None and integer[0] == key, key in said)


def is_decided(answer: str, key: str) -> bool:
    """Whether no further token can change that an unfinished answer is a hit."""
    said = _without_reasoning(answer)
    integer = _INTEGER.search(said) if said is not None else None
    return (
        said is not None
        and integer is not None
        and (integer[0] == key and integer.end() < len(said))
    )


def _without_reasoning(answer: str) -> str | None:
    """The answer proper; None where a reasoning block is still open."""
    said = _REASONING.sub("", answer)
    return None if _REASONING_STARTS.search(said) else said
