"""What was measured of methods on models that this project knows; an entry is all it takes.

A model counts as known where architecture, training length, base and the shape of its layers are
those of an entry, whatever its quantization; nothing is said of others.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from ggufext.planning.evidence import Measurement
from ggufext.planning.methods import Method

if TYPE_CHECKING:
    from ggufext.header.facts import ModelFacts

#: A plan's factor is the measured one up to this share: nothing is said of other factors.
_SAME_FACTOR = 0.1


@dataclass(frozen=True, slots=True)
class Measured:
    """What was measured of a method on a model.

    Attributes
    ----------
    model : str
        On which.
    factor : float
        Target over training length, as measured.
    measurement : Measurement
    source : str
        The page of this project that tells how.
    """

    model: str
    factor: float
    measurement: Measurement
    source: str


class _Known(NamedTuple):
    model: str
    source: str
    architecture: str
    train_length: int
    freq_base: float
    layers: int
    #: (KV heads, head size) of every layer.
    heads: tuple[int, int]
    found: tuple[tuple[Method, float, Measurement], ...]


def _keys(found: int, low: float, high: float) -> Measurement:
    """Keys found of 54 prompts whose length is the target."""
    return Measurement("keys_at_target", None, found / 54, (low, high), 54)


def _loss(value: float, low: float, high: float, n: int) -> Measurement:
    return Measurement("loss_beyond", "native", value, (low, high), n)


_KNOWN = (
    _Known(
        model="passkey-Q8_0.gguf",
        source="models/README.md",
        architecture="llama",
        train_length=256,
        freq_base=500.0,
        layers=4,
        heads=(4, 32),
        found=(
            (Method.GAMMA, 2, _keys(49, 0.80, 0.96)),
            (Method.GAMMA, 4, _keys(43, 0.67, 0.88)),
            (Method.GAMMA, 8, _keys(23, 0.30, 0.56)),
            (Method.NTK, 2, _keys(52, 0.87, 0.99)),
            (Method.NTK, 4, _keys(37, 0.55, 0.79)),
            (Method.NTK, 8, _keys(29, 0.41, 0.66)),
            (Method.YARN, 2, _keys(54, 0.93, 1.00)),
            (Method.YARN, 4, _keys(46, 0.73, 0.92)),
            (Method.YARN, 8, _keys(37, 0.55, 0.79)),
            (Method.LINEAR, 2, _keys(0, 0.00, 0.07)),
            (Method.LINEAR, 4, _keys(0, 0.00, 0.07)),
            (Method.LINEAR, 8, _keys(0, 0.00, 0.07)),
        ),
    ),
    _Known(
        model="SmolLM2-135M-Instruct Q4_1",
        source="docs/compare.md",
        architecture="llama",
        train_length=8192,
        freq_base=100_000.0,
        layers=30,
        heads=(3, 64),
        found=(
            (Method.GAMMA, 1.25, _loss(0.002, -0.012, 0.017, 501)),
            (Method.YARN, 1.25, _loss(0.005, -0.006, 0.017, 501)),
        ),
    ),
)


def measured(facts: ModelFacts, method: Method, factor: float) -> Measured | None:
    """What was measured of a method by itself at such a factor; None where nothing was.

    Parameters
    ----------
    facts : ModelFacts
        Before any extension.
    method : Method
    factor : float
        Target over training length.
    """
    heads = {(layer.head_count_kv, layer.key_length) for layer in facts.layers}
    shape = (facts.architecture, facts.train_length, facts.freq_base, len(facts.layers))
    for known in _KNOWN:
        same = (known.architecture, known.train_length, known.freq_base, known.layers)
        if shape != same or heads != {known.heads}:
            continue
        for of, at, measurement in known.found:
            if of is method and math.isclose(at, factor, rel_tol=_SAME_FACTOR):
                return Measured(known.model, at, measurement, known.source)
    return None
