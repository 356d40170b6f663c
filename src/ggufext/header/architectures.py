"""What llama.cpp does with each architecture, read from architectures.toml."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from enum import Enum
from functools import cache
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


class Support(Enum):
    """How well an architecture is known."""

    VERIFIED = "verified"
    """Tried against llama.cpp: planned values reach the graph, nothing else moves."""
    READ = "read"
    """Read from llama.cpp's source, not tried."""
    UNKNOWN = "unknown"
    """Not in the table."""


class Layout(Enum):
    """Which dimensions of a head form a rotated pair."""

    INTERLEAVED = "interleaved"
    """Pairs (2i, 2i+1); llama.cpp's NORM."""
    HALF = "half"
    """Pairs (i, i + d/2); llama.cpp's NEOX."""
    SECTIONS = "sections"
    """Several position rows; llama.cpp's MROPE and IMROPE."""
    NONE = "none"
    """No rotation."""


class Positions(Enum):
    """Where a model gets positions from."""

    ROPE = "rope"
    LEARNED = "learned"
    """A table with one row a position: a longer context does not fit the file."""
    NONE = "none"
    UNKNOWN = "unknown"


class FactorSupport(Enum):
    """Which frequency-factor tensors llama.cpp loads and rotates with."""

    NONE = "none"
    """None: a file that carries one does not load, or the graph ignores it."""
    ROPE_FREQS = "rope_freqs"
    """rope_freqs.weight."""
    BY_TYPE = "by_type"
    """rope_factors_long and _short.weight with scaling type longrope, else rope_freqs.weight."""
    LONG_SHORT = "long_short"
    """rope_factors_long and _short.weight, whatever the scaling type."""


@dataclass(frozen=True, slots=True)
class Architecture:
    """One entry of the table.

    Attributes
    ----------
    name : str
        Value of general.architecture.
    support : Support
    layout : Layout
    positions : Positions
    kind : str
        ``"language_model"``, or what the file is instead.
    local_freq_base : float or None
        RoPE base of sliding-window layers where it does not follow rope.freq_base.
    local_pattern : int or None
        Where sliding windows exist and the file has no pattern of its own: every n-th layer is
        global, the others local.
    factor_support : FactorSupport
    """

    name: str
    support: Support
    layout: Layout
    positions: Positions
    kind: str = "language_model"
    local_freq_base: float | None = None
    local_pattern: int | None = None
    factor_support: FactorSupport = FactorSupport.NONE


@cache
def _text() -> str:
    return Path(__file__).with_name("architectures.toml").read_text(encoding="utf-8")


def architecture_names() -> tuple[str, ...]:
    """Every architecture string in the table."""
    return tuple(tomllib.loads(_text())["architectures"])


def _entry(name: str) -> dict[str, object] | None:
    """One table of the file: parsing all of them takes longer than reading a header."""
    heading = f"\n[architectures.{name}]\n"
    if not re.fullmatch(r"[\w-]+", name) or heading not in _text():
        return None
    return tomllib.loads(_text().partition(heading)[2].partition("\n[")[0])


@cache
def _factor_lists() -> dict[str, list[str]]:
    heading = "\n[factor_tensors]\n"
    lists = tomllib.loads(_text().partition(heading)[2].partition("\n[")[0])
    return {support: list(names) for support, names in lists.items()}


def _factor_support(name: str) -> FactorSupport:
    for support, names in _factor_lists().items():
        if name in names:
            return FactorSupport(support)
    return FactorSupport.NONE


def architecture(name: str) -> Architecture:
    """Look an architecture up; one that is not in the table has support `Support.UNKNOWN`."""
    entry = _entry(name)
    if entry is None:
        return Architecture(name, Support.UNKNOWN, Layout.NONE, Positions.UNKNOWN)
    base, pattern = entry.get("local_freq_base"), entry.get("local_pattern")
    return Architecture(
        name=name,
        support=Support(entry["support"]),
        layout=Layout(entry["layout"]),
        positions=Positions(entry["positions"]),
        kind=str(entry.get("kind", "language_model")),
        local_freq_base=base if isinstance(base, float) else None,
        local_pattern=pattern if isinstance(pattern, int) else None,
        factor_support=_factor_support(name),
    )
