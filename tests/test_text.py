"""Numbers as people read them."""

from __future__ import annotations

import pytest

from ggufext.text import binary_size, duration, percent, size_of


@pytest.mark.parametrize(
    ("share", "text"),
    [(0, "0 %"), (0.001, "<1 %"), (0.345, "34 %"), (0.999, ">99 %"), (1, "100 %")],
)
def test_only_nothing_is_0_percent_and_only_everything_100(share: float, text: str) -> None:
    assert percent(share) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 bytes"),
        (1023, "1,023 bytes"),
        (1024, "1.00 KiB"),
        (3 << 19, "1.50 MiB"),
        (4 << 30, "4.00 GiB"),
        (5 << 40, "5,120.00 GiB"),
    ],
)
def test_a_size_has_the_largest_binary_unit_up_to_gib(size: int, text: str) -> None:
    assert binary_size(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "1 s"),
        (119.4, "119 s"),
        (120, "2 min"),
        (600, "10 min"),
        (7199, "120 min"),
        (7200, "2 h"),
        (9000, "2 h"),
        (72 * 3600, "3 days"),
        (1e6, "12 days"),
    ],
)
def test_a_time_is_said_as_coarsely_as_an_estimate_is(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("text", "size"),
    [("1", 1), ("32768", 32_768), ("32k", 32_768), ("32K", 32_768), ("1m", 1 << 20)],
)
def test_a_size_that_a_person_writes_is_a_number(text: str, size: int) -> None:
    assert size_of(text, "km") == size


@pytest.mark.parametrize("text", ["", "0", "0k", "-1", "1.5k", "12g", "k", "1" * 16, "1 k"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="with k, m or nothing"):
        size_of(text, "km")
