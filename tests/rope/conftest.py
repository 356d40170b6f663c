"""Frequencies of every method, from the formulas of docs; arrays of every type."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

HEAD_DIM = 128
BASE = 500_000.0
TRAIN = 8192
FACTOR = 8.0
PAIRS = np.arange(HEAD_DIM // 2)
NATIVE = BASE ** (-2 * PAIRS / HEAD_DIM)


def yarn() -> Any:
    def dim(turns: float) -> float:
        return HEAD_DIM * math.log(TRAIN / (2 * math.pi * turns)) / (2 * math.log(BASE))

    low, high = max(0, math.floor(dim(32))), min(HEAD_DIM - 1, math.ceil(dim(1)))
    keep = 1 - np.clip((PAIRS - low) / max(0.001, high - low), 0, 1)
    return NATIVE / FACTOR * (1 - keep) + NATIVE * keep


def llama3() -> Any:
    wavelength = 2 * np.pi / NATIVE
    smooth = (TRAIN / wavelength - 1) / (4 - 1)
    blended = (1 - smooth) * NATIVE / FACTOR + smooth * NATIVE
    result = np.where(wavelength > TRAIN, NATIVE / FACTOR, blended)
    return np.where(wavelength < TRAIN / 4, NATIVE, result)


METHODS: dict[str, tuple[Any, float]] = {
    "native": (NATIVE, 1.0),
    "linear": (NATIVE / FACTOR, 1.0),
    "ntk": ((BASE * FACTOR ** (HEAD_DIM / (HEAD_DIM - 2))) ** (-2 * PAIRS / HEAD_DIM), 1.0),
    "gamma": ((BASE * FACTOR) ** (-2 * PAIRS / HEAD_DIM), 1.0),
    "yarn": (yarn(), 1 + 0.1 * math.log(FACTOR)),
    "llama3": (llama3(), 1.0),
    "longrope": (
        NATIVE / (1 + 31.37 * (PAIRS / 63) ** 1.7),
        math.sqrt(1 + math.log(FACTOR) / math.log(TRAIN)),
    ),
}


@pytest.fixture(params=list(METHODS))
def method(request: pytest.FixtureRequest) -> tuple[Any, float]:
    """(inv_freq, attention_factor) of one method after another."""
    return METHODS[request.param]


@pytest.fixture(params=["float32", "float16", "bfloat16"])
def dtype(request: pytest.FixtureRequest) -> Any:
    """Each element type as a NumPy type."""
    if request.param == "bfloat16":
        return np.dtype(pytest.importorskip("ml_dtypes").bfloat16)
    return np.dtype(request.param)


@pytest.fixture(params=["interleaved", "half"])
def layout(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def frequencies() -> Callable[[int], Any]:
    """Native frequencies for as many rotated elements as asked for."""
    return lambda dim: 10_000.0 ** (-np.arange(0, dim, 2) / dim)


@pytest.fixture
def draw() -> Callable[..., Any]:
    """Random normal values of a shape and type, always the same."""

    def make(shape: tuple[int, ...], dtype: Any = np.float32) -> Any:
        return np.random.default_rng(20_261_123).standard_normal(shape).astype(dtype)

    return make


@pytest.fixture
def assert_close() -> Callable[..., None]:
    """Compare with a float64 result: half a unit in the last place, and 3e-7 of the pair's length.

    The length is bounded by the largest element of the result times √2, which is what a pair can
    hide in one of its elements.
    """

    def check(found: Any, exact: Any) -> None:
        found = np.asarray(found)
        digits = {"float32": 24, "float16": 11, "bfloat16": 8}[found.dtype.name]
        lowest = {"float32": -126, "float16": -14, "bfloat16": -126}[found.dtype.name]
        exponent = np.maximum(np.frexp(exact)[1] - 1, lowest)
        half_unit = 0.0 if digits == 24 else np.ldexp(0.5, exponent - digits + 1)
        length = 3e-7 * np.abs(exact).max(initial=0.0) * math.sqrt(2)
        worst = np.max(np.abs(found.astype(np.float64) - exact) - half_unit, initial=0.0)
        assert worst <= length

    return check
