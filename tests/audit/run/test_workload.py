"""What a run computes and how long that takes, against sums over single tokens."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ggufext.audit.run.duration import PromptSpan, Speed, spans
from ggufext.audit.task import Question

SPEED = Speed(
    prompt_start=0.01,
    prompt_end=0.03,
    answer_start=0.02,
    answer_end=0.1,
    context=1000,
    tokens=263,
    can_reuse=True,
    stretch=2,
)


def question(text: int, shared: int, own: int) -> Question:
    """A prompt of ten tokens a part: some that all prompts of the text have, then its own."""
    begins = tuple(f" text {text} part {index}" for index in range(shared))
    ends = tuple(f" {text}-{shared}-{index}" for index in range(own))
    return Question(
        text=text,
        length=512,
        depth=0.5,
        distance=1,
        key="12345",
        parts=begins + ends,
        tokens=10 * (shared + own),
        key_start=0,
        stop="",
    )


@given(st.integers(0, 2000), st.integers(0, 2000), st.integers(0, 40))
def test_time_is_the_sum_over_tokens_that_slow_down_evenly(
    start: int, more: int, answer: int
) -> None:
    def at(position: float, first: float, last: float) -> float:
        return first + (last - first) * position / 1000

    end = start + more
    expected = sum(at(position + 0.5, 0.01, 0.03) for position in range(start, end))
    expected += min(answer, 16) * at(end, 0.02, 0.1)
    assert SPEED.seconds([PromptSpan(start, end)], answer_tokens=answer) == pytest.approx(expected)


def test_a_measurement_that_got_faster_towards_the_end_does_not_make_time_negative() -> None:
    noisy = replace(SPEED, prompt_end=0.001, answer_end=0.001)
    assert noisy.seconds([PromptSpan(0, 10**6)], answer_tokens=4) == pytest.approx(10**4 + 4 * 0.02)


def test_what_a_prompt_shares_with_the_one_before_is_computed_once() -> None:
    asked = [question(0, 30, 5), question(0, 20, 15), question(0, 25, 10)]
    # 200 tokens are common to all, of which 192 are a multiple of 64
    assert spans(asked, reuse=64) == [
        PromptSpan(0, 350),
        PromptSpan(192, 350),
        PromptSpan(192, 350),
    ]
    assert spans(asked, reuse=1)[1] == PromptSpan(200, 350)


def test_texts_share_nothing() -> None:
    assert spans([question(0, 30, 5), question(1, 30, 5)], reuse=64)[1] == PromptSpan(0, 350)


def test_without_reuse_every_prompt_is_computed_whole() -> None:
    assert spans([question(0, 30, 5)] * 2, reuse=0) == [PromptSpan(0, 350)] * 2
