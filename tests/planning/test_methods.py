"""Frequencies of each method against published and independently computed values."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ggufext.header.frequencies import inverse_frequencies
from ggufext.planning import methods


@pytest.mark.parametrize(
    ("dim", "train", "base", "expected"),
    [(128, 4096, 1e4, (20, 46)), (128, 32768, 1e6, (23, 40)), (32, 256, 500.0, (0, 10))],
)
def test_yarn_correction_range(
    dim: int, train: int, base: float, expected: tuple[int, int]
) -> None:
    assert methods.yarn_correction_range(base, dim, train) == expected


def test_yarn_frequencies_of_llama_2_at_factor_8() -> None:
    made = methods.yarn(1e4, 128, 8.0, 4096)
    expected = {
        0: 1.0,
        20: 0.056234133,
        21: 0.047057919,
        33: 0.0048710493,
        45: 0.00024431527,
        46: 0.00016669018,
        63: 1.4434775e-05,
    }
    for pair, value in expected.items():
        assert made.inv_freq[pair] == pytest.approx(value, rel=1e-7)
    assert made.attention_factor == pytest.approx(1.2079441541679836, rel=1e-15)


def test_yarn_frequencies_of_a_small_model_at_factor_8() -> None:
    expected = (
        1, 0.61879564, 0.37938722, 0.22998799, 0.13745826, 0.08066672, 0.046193392, 0.025554791,
        0.013416408, 0.0064444863, 0.002570714, 0.001743284, 0.001182177, 0.00080167231,
        0.00054363982, 0.00036865967,
    )  # fmt: skip
    assert methods.yarn(500.0, 32, 8.0, 256).inv_freq == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("base", "factor", "expected"),
    [(1e4, 2, 20221.26), (1e4, 4, 40889.94), (1e4, 8, 82684.62), (5e5, 4, 2044497.12)],
)
def test_ntk_base(base: float, factor: float, expected: float) -> None:
    assert methods.ntk_freq_base(base, 128, factor) == pytest.approx(expected, rel=1e-6)


@given(
    base=st.floats(min_value=100, max_value=1e8),
    half=st.integers(min_value=2, max_value=128),
    factor=st.floats(min_value=1.01, max_value=64),
)
def test_ntk_stretches_the_slowest_pair_by_exactly_the_factor(
    base: float, half: int, factor: float
) -> None:
    dim = 2 * half
    native = inverse_frequencies(base, dim)
    stretched = methods.rebased(methods.ntk_freq_base(base, dim, factor), dim).inv_freq
    assert stretched[0] == native[0]
    assert stretched[-1] == pytest.approx(native[-1] / factor, rel=1e-9)


@given(
    base=st.floats(min_value=100, max_value=1e8),
    half=st.integers(min_value=2, max_value=128),
    factor=st.floats(min_value=1.01, max_value=64),
    train=st.integers(min_value=256, max_value=2**20),
)
def test_yarn_lies_between_native_and_linear(
    base: float, half: int, factor: float, train: int
) -> None:
    dim = 2 * half
    native = inverse_frequencies(base, dim)
    mixed = methods.yarn(base, dim, factor, train).inv_freq
    for kept, value in zip(native, mixed, strict=True):
        assert kept / factor * (1 - 1e-12) <= value <= kept * (1 + 1e-12)


def test_linear_divides_every_frequency() -> None:
    native = inverse_frequencies(1e4, 64)
    assert methods.linear(1e4, 64, 4.0).inv_freq == tuple(w / 4 for w in native)
