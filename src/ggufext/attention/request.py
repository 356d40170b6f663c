"""What a measurement of attention is asked to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ggufext.audit.request import recipe_file
from ggufext.errors import PlanError
from ggufext.planning.footprint import LARGEST_TARGET

if TYPE_CHECKING:
    from pathlib import Path

#: Tokens at the beginning that are kept apart: attention is parked there, whatever they say.
SINK = 4

#: Longest length measured where none is asked for, tokens: a minute of a small model.
_USUAL_LENGTH = 4096

#: Shortest length taken for real, tokens: ranges to a half of it are then ten.
SHORTEST = 64

#: Fewest query rows: eight blocks of two, from which an interval is drawn.
FEWEST_ROWS = 16

#: Most query rows; what is kept of each is a few numbers a head.
_MOST_ROWS = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasureRequest:
    """What to measure of a model's attention.

    Attributes
    ----------
    length : int or None
        Tokens of text that are read. None: the file's context length, up to 4,096.
    distance : int or None
        Largest distance measured, tokens. None: half of the length.
    rows : int
        Queries whose attention is read, 16 … 4,096: evenly spread over the text behind `distance`,
        so that each sees every distance.
    conditions : tuple of str
        Names of conditions, but for Self-Extend; see `ggufext.audit.conditions.conditions`; each
        counts once.
    text : Path or None
        A file of UTF-8 text whose beginning is read. None: filler sentences of the audit.
    target_length : int or None
        What planned conditions extend to, tokens; the length when absent.
    train_length, train_freq_base
        Tokens and RoPE base that the model was really trained with, where the file says something
        else; see `ggufext.header.training.trained_facts`.
    threads : int or None
        As of `ggufext.audit.request.LocalSettings`.
    llama_cpp : Path or None
        llama.cpp's library, or the folder of a build that holds it; None: the installed one.
    seed : int
        Of the filler and of the intervals; no unit.
    """

    length: int | None = None
    distance: int | None = None
    rows: int = 256
    conditions: tuple[str, ...] = ("file",)
    text: Path | None = None
    target_length: int | None = None
    train_length: int | None = None
    train_freq_base: float | None = None
    threads: int | None = None
    llama_cpp: Path | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be measured.

        Raises
        ------
        PlanError
            ``request_absurd``, ``target_absurd``.
        """
        if not self.conditions or not FEWEST_ROWS <= self.rows <= _MOST_ROWS:
            raise PlanError(
                code="request_absurd",
                message=f"at least one condition and {FEWEST_ROWS} to {_MOST_ROWS:,} query rows "
                "are needed",
            )
        if self.length is not None and not SHORTEST <= self.length <= LARGEST_TARGET:
            raise PlanError(
                code="target_absurd",
                message=f"length of {self.length:,} tokens; lengths go from {SHORTEST} to "
                f"{LARGEST_TARGET:,}",
            )

    @property
    def files(self) -> tuple[Path, ...]:
        """Files beside the model that a run reads."""
        recipes = (recipe_file(name) for name in self.conditions)
        return tuple(each for each in (self.text, *recipes) if each is not None)


def usual_length(context: int) -> int:
    """Length that is measured where none is asked for, tokens."""
    return max(min(context, _USUAL_LENGTH), SHORTEST)


def query_rows(length: int, distance: int, rows: int) -> tuple[int, ...]:
    """Positions of up to `rows` queries that each see every distance and something beyond.

    Raises
    ------
    PlanError
        ``request_absurd``: there are too few such positions.
    """
    first = SINK + distance + 1
    positions = length - first
    if distance < 1 or positions < FEWEST_ROWS:
        raise PlanError(
            code="request_absurd",
            message=f"distance of {distance:,} tokens; in a text of {length:,} distances go from 1 "
            f"to {length - SINK - 1 - FEWEST_ROWS:,}, which leaves {FEWEST_ROWS} queries that see "
            "all of them",
        )
    count = min(rows, positions)
    return tuple(first + positions * index // count for index in range(count))
