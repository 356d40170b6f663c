"""What was measured of a plan before it is written: in a recipe, and in the record of the edit.

Either comes from outside, so what is no evidence is left out: it decides nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

#: What a record has room for: measurements, and characters of one text.
_MOST, _LONGEST = 32, 2_000


@dataclass(frozen=True, slots=True)
class Measurement:
    """One number that was measured of a plan.

    Attributes
    ----------
    measure : str
        ``"loss_beyond"`` and ``"loss_within"`` the training length, nats a token;
        ``"mean_loss_beyond"`` and ``"mean_loss_within"``, the same as means over texts;
        ``"divergence"``, nats; ``"same_top"`` and ``"keys_at_target"``, shares.
    against : str or None
        The condition that it is a difference or a distance from; None: a value of its own.
    value : float
        In the unit of the measure.
    interval : tuple of (float, float) or None
        At 95 %, in the unit of the measure.
    n : int
        How many tokens, texts, positions or keys it was counted on.
    """

    measure: str
    against: str | None
    value: float
    interval: tuple[float, float] | None
    n: int


@dataclass(frozen=True, slots=True)
class Evidence:
    """What speaks for a plan.

    Attributes
    ----------
    tool : str
        Program and version that measured.
    llama_cpp : str
        Its release.
    condition : str
        What was measured, as ``planned:yarn``.
    reason : str
        The recommendation, one sentence.
    texts : int
        How many were read.
    measurements : tuple of Measurement
        All of it.
    """

    tool: str
    llama_cpp: str
    condition: str
    reason: str
    texts: int
    measurements: tuple[Measurement, ...]


def decode_evidence(value: object) -> Evidence | None:
    """Read evidence from what was JSON; None for anything that is none."""
    try:
        fields = _object(value)
        measured = fields["measurements"]
        if not isinstance(measured, list) or len(measured) > _MOST:
            raise TypeError
        return Evidence(
            tool=_text(fields["tool"]),
            llama_cpp=_text(fields["llama_cpp"]),
            condition=_text(fields["condition"]),
            reason=_text(fields["reason"]),
            texts=_count(fields["texts"]),
            measurements=tuple(_measurement(_object(each)) for each in measured),
        )
    except (KeyError, TypeError, ValueError, OverflowError):
        return None


def _measurement(fields: dict[str, object]) -> Measurement:
    against, interval = fields["against"], fields["interval"]
    if interval is not None:
        if not isinstance(interval, list):
            raise TypeError
        low, high = interval
        interval = _number(low), _number(high)
    return Measurement(
        measure=_text(fields["measure"]),
        against=None if against is None else _text(against),
        value=_number(fields["value"]),
        interval=interval,
        n=_count(fields["n"]),
    )


def _object(value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        raise TypeError
    return value


def _text(value: object) -> str:
    if not isinstance(value, str) or len(value) > _LONGEST:
        raise TypeError
    return value


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise TypeError
    return float(value)


def _count(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise TypeError
    return value
