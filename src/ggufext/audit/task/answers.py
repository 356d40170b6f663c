"""Judging an answer: the first integer after any reasoning."""

from __future__ import annotations

import re
from dataclasses import dataclass

#: How models of today mark what they think before they answer: a regular expression.
REASONING = (
    r"(?s:<(think|thinking|reasoning|thought)>.*?</\1>"
    r"|\[THINK\].*?\[/THINK\]"
    r"|<\|channel\|>analysis<\|message\|>.*?<\|end\|>)"
)
_REASONING_STARTS = r"<(?:think|thinking|reasoning|thought)>|\[THINK\]|<\|channel\|>analysis"
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


def stop_rule(key: str) -> str:
    """What an unfinished answer without its `REASONING` matches when it is surely a hit.

    Parameters
    ----------
    key : str
        Digits.

    Returns
    -------
    str
        A regular expression for all of the rest: its first integer is the key, something follows
        it, and no reasoning is open; no further token can change that.
    """
    return rf"(?s:(?!.*(?:{_REASONING_STARTS}))\D*{key}\D.*)"


def _without_reasoning(answer: str) -> str | None:
    """The answer proper; None where a reasoning block is still open."""
    said = re.sub(REASONING, "", answer)
    return None if re.search(_REASONING_STARTS, said) else said
