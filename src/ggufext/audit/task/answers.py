"""Judging an answer: the first integer after any reasoning."""

from __future__ import annotations

import re
from dataclasses import dataclass

#: How models of today mark what they think before they answer: begin and end.
_REASONING_MARKS = (
    *((f"<{name}>", f"</{name}>") for name in ("think", "thinking", "reasoning", "thought")),
    ("[THINK]", "[/THINK]"),
    ("<|channel|>analysis<|message|>", "<|end|>"),
)

#: Reasoning that has begun; of the last it is seen early.
_REASONING_STARTS = (*(begin for begin, _ in _REASONING_MARKS[:-1]), "<|channel|>analysis")

_REASONING = re.compile(
    "|".join(f"{re.escape(begin)}.*?{re.escape(end)}" for begin, end in _REASONING_MARKS),
    re.DOTALL,
)
_OPEN_REASONING = re.compile("|".join(map(re.escape, _REASONING_STARTS)))
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
    """What an unfinished answer matches in full when no further token can make it a miss.

    Parameters
    ----------
    key : str
        Digits.

    Returns
    -------
    str
        A regular expression: outside of complete reasoning the first integer is the key,
        something follows it, and no reasoning is open.
    """
    block = "|".join(
        f"{re.escape(begin)}(?:(?!{re.escape(end)}).)*{re.escape(end)}"
        for begin, end in _REASONING_MARKS
    )
    # Blocks are cut out before anything else is looked at: they may stand inside what they hide.
    blocks = f"(?:{block})*"
    begun = "|".join(blocks.join(map(re.escape, start)) for start in _REASONING_STARTS)
    kept = f"(?!{block}|{begun})"
    digits = blocks.join(map(re.escape, key))
    return f"(?s:(?:{block}|{kept}\\D)*{digits}{blocks}{kept}\\D(?:{block}|{kept}.)*)"


def _without_reasoning(answer: str) -> str | None:
    """The answer proper; None where a reasoning block is still open."""
    said = _REASONING.sub("", answer)
    return None if _OPEN_REASONING.search(said) else said
