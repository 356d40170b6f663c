"""What was measured of methods on models that this project knows; an entry is all it takes.

Those of the study of the γ rule are in `study_record`. A model counts as known where architecture,
training length, base and the shape of its layers are those of an entry, whatever its quantization;
nothing is said of others.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ggufext.planning.evidence import Measurement
from ggufext.planning.methods import Method
from ggufext.planning.model_records import ModelRecord
from ggufext.planning.study_record import STUDY

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ggufext.header.facts import ModelFacts
    from ggufext.planning.model_records import Comparison

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
        The value, and what it was counted on.
    source : str
        The page of this project that tells how.
    """

    model: str
    factor: float
    measurement: Measurement
    source: str


@dataclass(frozen=True, slots=True)
class Recommended:
    """What the record says about the choice of a method.

    Attributes
    ----------
    methods : tuple of Method
        The default where it is better than every other method it was compared with or the same,
        else those that it is worse than.
    model : str
        On which it was measured.
    factor : float
        Target over training length, as measured.
    comparisons : tuple of Comparison
        The evidence, all of it.
    source : str
        The page of this project that tells how.
    """

    methods: tuple[Method, ...]
    model: str
    factor: float
    comparisons: tuple[Comparison, ...]
    source: str


def _keys(found: int, low: float, high: float) -> Measurement:
    """Keys found of 54 prompts whose length is the target."""
    return Measurement("keys_at_target", None, found / 54, (low, high), 54)


def _loss(value: float, low: float, high: float, n: int) -> Measurement:
    return Measurement("loss_beyond", "native", value, (low, high), n)


_KNOWN: tuple[ModelRecord, ...] = (
    *STUDY,
    ModelRecord(
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
    ModelRecord(
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
    for record in _records(facts):
        for of, at, measurement in record.found:
            if of is method and math.isclose(at, factor, rel_tol=_SAME_FACTOR):
                return Measured(record.model, at, measurement, record.source)
    return None


def recommended(facts: ModelFacts, factor: float) -> Recommended | None:
    """What the record says about the choice of a method; None where it decides nothing.

    Parameters
    ----------
    facts : ModelFacts
        Before any extension.
    factor : float
        Target over training length.
    """
    for record in _records(facts):
        comparisons = tuple(
            each
            for each in record.comparisons
            if math.isclose(each.factor, factor, rel_tol=_SAME_FACTOR)
        )
        methods = _preferred(comparisons)
        if methods:
            at = comparisons[0].factor
            return Recommended(methods, record.model, at, comparisons, record.source)
    return None


def _preferred(comparisons: tuple[Comparison, ...]) -> tuple[Method, ...]:
    """The default against all, or those that are better than it; none where that is open.

    A rival that is better by one measure and worse by another is neither.
    """
    verdicts: dict[Method, set[str]] = {}
    for each in comparisons:
        verdicts.setdefault(each.rival, set()).add(each.verdict)
    better = [rival for rival, said in verdicts.items() if "worse" in said and "better" not in said]
    if better:
        return tuple(better)
    won = all(said <= {"the same"} or _wins(said) for said in verdicts.values())
    return (Method.GAMMA,) if verdicts and won else ()


def _wins(said: set[str]) -> bool:
    return "better" in said and "worse" not in said


def _records(facts: ModelFacts) -> Iterator[ModelRecord]:
    """Records of models like this one."""
    heads = {(layer.head_count_kv, layer.key_length) for layer in facts.layers}
    shape = (facts.architecture, facts.train_length, facts.freq_base, len(facts.layers))
    for record in _KNOWN:
        same = (record.architecture, record.train_length, record.freq_base, record.layers)
        if shape == same and heads == {record.heads}:
            yield record
