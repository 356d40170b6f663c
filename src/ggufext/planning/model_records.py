"""What a record of measured methods consists of: a model, what was measured on it, and how."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ggufext.planning.evidence import Measurement

if TYPE_CHECKING:
    from ggufext.planning.methods import Method


@dataclass(frozen=True, slots=True)
class Comparison:
    """The default method against another, by the protocol of a study.

    Attributes
    ----------
    rival : Method
        What the default was compared with.
    factor : float
        Target over training length.
    verdict : str
        What the default is: ``"better"``, ``"worse"``, ``"the same"`` or ``"undecided"``.
    measurement : Measurement
        The default less the rival.
    """

    rival: Method
    factor: float
    verdict: str
    measurement: Measurement


@dataclass(frozen=True, slots=True)
class ModelRecord:
    """What was measured on a model.

    Attributes
    ----------
    model : str
        What people call it.
    source : str
        The page of this project that tells how.
    architecture : str
    train_length : int
        Tokens.
    freq_base : float
    layers : int
    heads : tuple of (int, int)
        KV heads and head size of every layer.
    found : tuple of (Method, float, Measurement)
        Of a method at a factor.
    comparisons : tuple of Comparison
    """

    model: str
    source: str
    architecture: str
    train_length: int
    freq_base: float
    layers: int
    heads: tuple[int, int]
    found: tuple[tuple[Method, float, Measurement], ...]
    comparisons: tuple[Comparison, ...] = ()


def beyond_native(
    method: Method, factor: float, value: float, interval: tuple[float, float], texts: int
) -> tuple[Method, float, Measurement]:
    """Mean loss of a method beyond the training length, less that of native."""
    return method, factor, Measurement("mean_loss_beyond", "native", value, interval, texts)


def compared(
    rival: Method,
    factor: float,
    verdict: str,
    measure: str,
    value: float,
    interval: tuple[float, float],
    texts: int,
) -> Comparison:
    """The default method less a rival."""
    measurement = Measurement(measure, rival.value, value, interval, texts)
    return Comparison(rival, factor, verdict, measurement)
