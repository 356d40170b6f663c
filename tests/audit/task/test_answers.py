from __future__ import annotations

import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ggufext.audit.task.answers import REASONING, judge, stop_rule


@pytest.mark.parametrize(
    ("answer", "hit", "substring"),
    [
        (" 48213", True, True),
        (" 48213. Remember it.", True, True),
        ("The pass key is **48213**.", True, True),
        (" 482133", False, True),
        (" 12345, no, 48213", False, True),
        (" 12345", False, False),
        ("", False, False),
    ],
)
def test_hit_is_the_first_integer_and_substring_is_anywhere(
    answer: str, hit: bool, substring: bool
) -> None:
    judgement = judge(answer, "48213")
    assert (judgement.hit, judgement.substring) == (hit, substring)


@pytest.mark.parametrize(
    "reasoning",
    [
        "<think>Perhaps 11111?</think>",
        "[THINK]11111[/THINK]",
        "<|channel|>analysis<|message|>11111<|end|>",
    ],
)
def test_reasoning_is_skipped(reasoning: str) -> None:
    assert judge(f"{reasoning}\nIt is 48213.", "48213").hit is True


def test_answer_inside_unfinished_reasoning_is_not_measured() -> None:
    assert judge("<think>The key was 48213, but", "48213").hit is None


@pytest.mark.parametrize(
    ("answer", "decided"), [(" 48213", False), (" 48213.", True), (" 4821.", False)]
)
def test_answer_is_decided_when_the_key_has_ended(answer: str, decided: bool) -> None:
    assert stops(answer, "48213") is decided


def stops(answer: str, key: str) -> bool:
    """As the child applies the rule."""
    return re.fullmatch(stop_rule(key), re.sub(REASONING, "", answer)) is not None


def is_decided(answer: str, key: str) -> bool:
    """Whether no further token can change that an unfinished answer is a hit."""
    return judge(answer, key).hit is True and judge(answer + "0", key).hit is True


#: What answers are made of here: all that the rule looks at, whole and in pieces.
PARTS = (
    *("<think>", "</think>", "<thinking>", "</thinking>", "<thought>", "</thought>"),
    *("<reasoning>", "</reasoning>", "[THINK]", "[/THINK]"),
    *("<|channel|>analysis", "<|channel|>analysis<|message|>", "<|message|>", "<|end|>"),
    *("<th", "ink>", "<", ">", "</", "[", "]", "[TH", "INK]", "<|channel|>", "ana", "lysis"),
    *("7", "07", "70", "1", "٧", "²", "x", " ", ".", "\n", "\r"),
)


@given(st.lists(st.sampled_from(PARTS), max_size=14).map("".join), st.sampled_from(["7", "70"]))
@example("<think>7</think>7", "7")
@example("<think>7</think>7.", "7")
@example("7<think>x</think>0.", "70")
@example("<th<think>x</think>ink>7.", "7")
@example("7.<th<think>x</think>ink>", "7")
@example("7.<think>", "7")
@example("7.<think></thinking></think>", "7")
@settings(max_examples=2000, deadline=None)
def test_the_stop_rule_matches_exactly_the_answers_that_are_decided(answer: str, key: str) -> None:
    assert stops(answer, key) is is_decided(answer, key)
