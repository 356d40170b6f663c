"""Cosines, sines and results against exact arithmetic, up to the last position."""

from __future__ import annotations

import random
from functools import cache
from typing import Any

import mpmath
import numpy as np
import pytest

from ggufext.rope import rebase, reference, rotate

LAST = 2**31 - 1


def sample_positions() -> list[int]:
    rng = random.Random(5)
    powers = [2**n + d for n in (12, 17, 20, 24, 30) for d in (-1, 0, 1)]
    return [
        0,
        1,
        2,
        3,
        1_000_000,
        LAST - 1,
        LAST,
        *powers,
        *(rng.randrange(LAST) for _ in range(9)),
    ]


POSITIONS = sample_positions()


@cache
def exact_cos_sin(inv_freq: tuple[float, ...]) -> tuple[Any, Any]:
    """Cos and sin [position, pair] of the exact product of position and frequency."""
    with mpmath.workprec(140):
        angles = [[mpmath.mpf(p) * mpmath.mpf(w) for w in inv_freq] for p in POSITIONS]
        cos = np.array([[float(mpmath.cos(a)) for a in row] for row in angles])
        sin = np.array([[float(mpmath.sin(a)) for a in row] for row in angles])
    return cos, sin


def split_pairs(x: Any, layout: Any) -> tuple[Any, Any]:
    half = x.shape[-1] // 2
    if layout == "half":
        return x[..., :half], x[..., half:]
    return x[..., 0::2], x[..., 1::2]


def test_cos_and_sin_are_within_one_and_a_half_times_ten_to_minus_seven(
    method: Any, layout: Any
) -> None:
    inv_freq, _ = method
    cos, sin = exact_cos_sin(tuple(inv_freq))
    x = np.zeros((len(POSITIONS), 1, 2 * len(inv_freq)), np.float32)
    split_pairs(x, layout)[0][...] = 1
    found_cos, found_sin = split_pairs(
        rotate(x, np.array(POSITIONS), inv_freq=inv_freq, layout=layout), layout
    )
    assert np.abs(found_cos[:, 0] - cos).max() <= 1.5e-7
    assert np.abs(found_sin[:, 0] - sin).max() <= 1.5e-7


def exact_rotation(x: Any, method: Any, layout: Any) -> tuple[Any, Any, Any]:
    """First and second elements of the exact result, and the length of each pair times m."""
    inv_freq, factor = method
    cos, sin = (table[:, None, :] for table in exact_cos_sin(tuple(inv_freq)))
    x0, x1 = (part.astype(np.float64) for part in split_pairs(x, layout))
    return (
        factor * (x0 * cos - x1 * sin),
        factor * (x0 * sin + x1 * cos),
        factor * np.hypot(x0, x1),
    )


def half_unit(exact: Any, dtype: Any) -> Any:
    digits, lowest = {"float16": (11, -14), "bfloat16": (8, -126)}[dtype.name]
    return np.ldexp(0.5, np.maximum(np.frexp(exact)[1] - 1, lowest) - digits + 1)


@pytest.mark.parametrize("scale", [1.0, 1e-3, 30.0])
def test_results_are_within_their_type_s_bound(
    method: Any, layout: Any, dtype: Any, draw: Any, scale: float
) -> None:
    inv_freq, factor = method
    x = (draw((len(POSITIONS), 3, 2 * len(inv_freq))) * scale).astype(dtype)
    found = rotate(
        x, np.array(POSITIONS), inv_freq=inv_freq, attention_factor=factor, layout=layout
    )
    first, second, length = exact_rotation(x, method, layout)
    for part, exact in zip(split_pairs(found, layout), (first, second), strict=True):
        error = np.abs(part.astype(np.float64) - exact)
        rounding = 0 if dtype == np.float32 else half_unit(exact, dtype)
        assert np.all(error <= 3e-7 * length + rounding)


def test_position_zero_changes_nothing(
    layout: Any, dtype: Any, draw: Any, frequencies: Any
) -> None:
    x = draw((1, 5, 96), dtype)
    assert np.array_equal(rotate(x, [0], inv_freq=frequencies(96), layout=layout), x)


def test_frequencies_of_any_size_are_reduced_exactly() -> None:
    inv_freq = (1e300, 2.0**70, 6.283185307179586, 1e5, 1.0, 1e-12, 5e-324, 0.0)
    x = np.zeros((len(POSITIONS), 1, 16), np.float32)
    x[..., 0::2] = 1
    found = rotate(x, np.array(POSITIONS), inv_freq=inv_freq)
    with mpmath.workprec(1300):
        for row, p in enumerate(POSITIONS):
            for pair, w in enumerate(inv_freq):
                angle = mpmath.mpf(p) * mpmath.mpf(w)
                assert abs(found[row, 0, 2 * pair] - float(mpmath.cos(angle))) <= 1.5e-7
                assert abs(found[row, 0, 2 * pair + 1] - float(mpmath.sin(angle))) <= 1.5e-7


@pytest.mark.parametrize("kind", ["smallest", "largest", "infinite", "nan", "negative zero"])
def test_special_values_survive_position_zero(kind: str, dtype: Any, layout: Any) -> None:
    if dtype == np.float16:
        smallest, largest = 2.0**-24, 65504.0
    else:
        smallest, largest = 2.0**-133, 3.3895313892515355e38
    value = {
        "smallest": smallest,
        "largest": largest,
        "infinite": np.inf,
        "nan": np.nan,
        "negative zero": -0.0,
    }[kind]
    x = np.zeros((1, 1, 64), dtype)
    x[..., :] = value
    found = rotate(x, [0], inv_freq=np.ones(32), layout=layout).astype(np.float64)
    if kind in ("infinite", "nan"):  # ∞ · 0 is no number
        assert np.isnan(found).all()
    else:
        assert np.array_equal(found, x.astype(np.float64))


def test_half_precision_overflows_to_infinity_and_rounds_ties_to_even(layout: Any) -> None:
    for dim in (2, 8, 16, 64):  # every vector width
        x = np.full((1, 1, dim), 65504, np.float16)
        factor: Any = {"attention_factor": 1 + 2**-11 + 2**-12}
        assert np.isinf(rotate(x, [0], inv_freq=np.ones(dim // 2), layout=layout, **factor)).all()
        ties = np.full((1, 1, dim), 1 + 2**-10, np.float16)  # times 1 + 2⁻¹¹ lies near a tie
        exact = (1 + 2.0**-10) * (1 + 2.0**-11)
        found = rotate(
            ties, [0], inv_freq=np.ones(dim // 2), layout=layout, attention_factor=1 + 2**-11
        )
        assert np.array_equal(found, np.full_like(ties, np.float16(exact)))


def test_inverse_undoes_a_rotation_with_its_attention_factor(
    method: Any, layout: Any, draw: Any
) -> None:
    inv_freq, factor = method
    x = draw((len(POSITIONS), 2, 2 * len(inv_freq)))
    options = {"inv_freq": inv_freq, "attention_factor": factor, "layout": layout}
    there = rotate(x, np.array(POSITIONS), **options)
    back = rotate(there, np.array(POSITIONS), inverse=True, **options)
    assert np.abs(back - x).max() <= 3e-6


class Plan:
    def __init__(self, method: Any) -> None:
        self.inv_freq, self.attention_factor = tuple(map(float, method[0])), method[1]


def test_rebase_gives_what_the_new_plan_would_have_given(
    method: Any, layout: Any, draw: Any
) -> None:
    native = Plan((10_000.0 ** (-np.arange(64) / 64), 1.25))
    new = Plan(method)
    x = draw((len(POSITIONS), 2, 128))
    positions = np.array(POSITIONS)
    old_keys = rotate(x, positions, inv_freq=native.inv_freq, attention_factor=1.25, layout=layout)
    moved = rebase(old_keys, positions, native, new, layout=layout)
    first, second, length = exact_rotation(x, method, layout)
    for part, exact in zip(split_pairs(moved, layout), (first, second), strict=True):
        assert np.all(np.abs(part - exact) <= 2 * 3e-7 * length)


def test_the_reference_agrees_with_exact_arithmetic_up_to_a_million(
    method: Any, layout: Any, draw: Any
) -> None:
    inv_freq, factor = method
    x = draw((len(POSITIONS), 2, 2 * len(inv_freq)))
    found = reference.rotate(
        x, np.array(POSITIONS), inv_freq=inv_freq, attention_factor=factor, layout=layout
    )
    near = np.array(POSITIONS) <= 1_000_000
    first, second, _ = exact_rotation(x, method, layout)
    for part, exact in zip(split_pairs(found, layout), (first, second), strict=True):
        assert np.abs(part - exact)[near].max() <= 2e-9
        assert np.abs(part - exact).max() <= 2e-6
