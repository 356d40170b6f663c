from __future__ import annotations

import pytest

from ggufext.audit.task.answers import is_decided, judge


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
    assert is_decided(answer, "48213") is decided
