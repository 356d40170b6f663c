"""Output errors of the screen, against a plain float64 version of what they are."""

from __future__ import annotations

import builtins
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pytest

from ggufext.header.frequencies import inverse_frequencies
from ggufext.rope import reference
from ggufext.tuning.screen import Capture, CapturedLayer, Screen, attend, relative_error

if TYPE_CHECKING:
    from collections.abc import Sequence

    Array = npt.NDArray[np.float64]

TOKENS, HEADS, HEADS_KV, ELEMENTS, TRAINED = 90, 6, 2, 16, 40
ROWS = (5, 39, 40, 41, 60, 88, 89)


@dataclass(frozen=True)
class Rotation:
    inv_freq: tuple[float, ...]
    attention_factor: float = 1.0


NATIVE = Rotation(inverse_frequencies(500.0, ELEMENTS))
CAPTURED_UNDER = Rotation(inverse_frequencies(1500.0, ELEMENTS), 1.1)
CANDIDATE = Rotation(tuple(w / (1 + i / 4) for i, w in enumerate(NATIVE.inv_freq)), 1.07)


def raw(seed: int = 0, elements: int = ELEMENTS) -> tuple[Array, Array, Array]:
    """Queries, keys and values before any rotation."""
    rng = np.random.default_rng(seed)
    return (
        rng.normal(size=(len(ROWS), HEADS, elements)),
        rng.normal(size=(TOKENS, HEADS_KV, elements)),
        rng.normal(size=(TOKENS, HEADS_KV, 8)),
    )


def rotated(x: Array, positions: Sequence[int], rotation: Rotation, layout: str) -> Array:
    return np.asarray(
        reference.rotate(
            x,
            positions,
            inv_freq=rotation.inv_freq,
            attention_factor=rotation.attention_factor,
            layout=layout,
        )
    )


def plain_attention(q: Array, k: Array, v: Array, *, scale: float, window: int | None) -> Array:
    """One query, one head and one token after another."""
    out = np.zeros((len(ROWS), HEADS, v.shape[2]))
    for row, position in enumerate(ROWS):
        first = 0 if window is None else max(0, position - window + 1)
        for head in range(HEADS):
            shared = head // (HEADS // HEADS_KV)
            scores = [
                scale * float(q[row, head] @ k[t, shared]) for t in range(first, position + 1)
            ]
            weights = [math.exp(score - max(scores)) for score in scores]
            for weight, token in zip(weights, range(first, position + 1), strict=True):
                out[row, head] += weight / sum(weights) * v[token, shared]
    return out


def layer_of(x: tuple[Array, Array, Array], layout: str) -> CapturedLayer:
    q, k, v = x
    return CapturedLayer(
        rotated(q, ROWS, CAPTURED_UNDER, layout).astype(np.float32),
        rotated(k, range(TOKENS), CAPTURED_UNDER, layout).astype(np.float32),
        v.astype(np.float32),
        0.25,
    )


def plain_error(x: tuple[Array, Array, Array], candidate: Rotation, layout: str) -> float:
    q, k, v = x

    def output(rotation: Rotation, window: int | None) -> Array:
        return plain_attention(
            rotated(q, ROWS, rotation, layout),
            rotated(k, range(TOKENS), rotation, layout),
            v,
            scale=0.25,
            window=window,
        )

    found, teacher = output(candidate, None), output(NATIVE, TRAINED)
    return float(((found - teacher) ** 2).sum() / (teacher**2).sum())


def screened(layout: str, seeds: Sequence[int] = (0,), elements: int = ELEMENTS) -> Screen:
    layers = tuple(layer_of(raw(seed, elements), layout) for seed in seeds)
    return Screen(Capture(layers, ROWS, CAPTURED_UNDER, layout), NATIVE, TRAINED)


@pytest.mark.parametrize("layout", ["interleaved", "half"])
def test_the_error_is_that_of_the_plain_version(layout: str) -> None:
    error = screened(layout, (0, 1)).error(CANDIDATE)
    wanted = [plain_error(raw(seed), CANDIDATE, layout) for seed in (0, 1)]
    assert error == pytest.approx(sum(wanted) / 2, rel=1e-4)
    assert wanted[0] != pytest.approx(wanted[1], rel=1e-2)


def test_what_does_not_rotate_is_left_alone() -> None:
    found = screened("half", elements=ELEMENTS + 4).error(CANDIDATE)
    assert found == pytest.approx(plain_error(raw(0, ELEMENTS + 4), CANDIDATE, "half"), rel=1e-4)


def test_without_the_native_module_the_reference_gives_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compiled = screened("interleaved").error(CANDIDATE)
    import_module = builtins.__import__

    def without(name: str, *args: object, **rest: object) -> object:
        if name == "ggufext._core":
            raise ImportError(name)
        return import_module(name, *args, **rest)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", without)
    assert screened("interleaved").error(CANDIDATE) == pytest.approx(compiled, rel=1e-4)


@pytest.mark.parametrize("window", [None, 1, 7, 40, 200])
def test_attention_sees_its_window_and_nothing_behind_the_query(window: int | None) -> None:
    q, k, v = raw()
    layer = CapturedLayer(q.astype(np.float32), k.astype(np.float32), v.astype(np.float32), 0.5)
    wanted = plain_attention(q, k, v, scale=0.5, window=window)
    assert attend(layer, ROWS, window=window) == pytest.approx(wanted, abs=2e-5)


def test_native_within_its_training_length_has_no_error() -> None:
    layer = layer_of(raw(), "half")
    short = Capture(
        (
            replace(
                layer, queries=layer.queries[:2], keys=layer.keys[:40], values=layer.values[:40]
            ),
        ),
        ROWS[:2],
        CAPTURED_UNDER,
        "half",
    )
    screen = Screen(short, NATIVE, TRAINED)
    assert screen.error(NATIVE) == pytest.approx(0, abs=1e-9)
    assert screen.error(CANDIDATE) > 1e-3


def test_an_error_is_relative_to_what_was_wanted() -> None:
    wanted = np.array([3.0, 4.0], np.float32)
    assert relative_error(wanted + np.float32(1.0), wanted) == pytest.approx(2 / 25)
