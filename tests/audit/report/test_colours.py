"""The scale reads without colour vision, and text on it is readable."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ggufext.audit.report.picture import (
    STOPS,
    accuracy_colour,
    contrast,
    hexadecimal,
    luminance,
    text_colour,
)

shares = st.floats(0, 1)


@given(shares)
def test_text_on_every_colour_of_the_scale_meets_wcag_aa(share: float) -> None:
    colour = accuracy_colour(share)
    assert contrast(colour, text_colour(colour)) >= 4.5


@given(shares, st.floats(0.02, 1))
def test_more_keys_found_is_always_lighter(share: float, more: float) -> None:
    higher = min(share + more, 1.0)
    if higher - share >= 0.02:  # channels are whole numbers: nearer shares may share a colour
        assert luminance(accuracy_colour(higher)) > luminance(accuracy_colour(share))


def test_the_ends_of_the_scale_are_far_apart_in_lightness() -> None:
    assert contrast(accuracy_colour(0), accuracy_colour(1)) > 10


def test_the_scale_meets_its_stops() -> None:
    assert [accuracy_colour(share) for share, _ in STOPS] == [colour for _, colour in STOPS]


def test_no_colour_of_the_scale_is_the_grey_of_what_was_not_measured() -> None:
    assert all(len(set(accuracy_colour(i / 100))) > 1 for i in range(101))


def test_an_accuracy_above_1_is_refused() -> None:
    with pytest.raises(ValueError, match="above 1"):
        accuracy_colour(1.01)


def test_contrast_of_black_and_white_is_21() -> None:
    assert contrast((0, 0, 0), (255, 255, 255)) == pytest.approx(21)


def test_hexadecimal_writes_two_digits_a_channel() -> None:
    assert hexadecimal((0, 10, 255)) == "#000aff"
