"""Where in a text keys are hidden: bins of depth, 0 the beginning, 1 just before the question."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from ggufext.errors import PlanError

if TYPE_CHECKING:
    from collections.abc import Sequence


class Mode(Enum):
    """How keys are asked for."""

    STANDARD = "standard"
    """One key in a text of its own."""
    SWEEP = "sweep"
    """Many labelled keys in one text: harder, and reported under its own name."""


_MOST = 100


@dataclass(frozen=True, slots=True)
class DepthBin:
    """Depths of one row of cells, in [0, 1], and its middle; a named depth has no width."""

    start: float
    depth: float
    end: float

    def at(self, share: float) -> float:
        """The depth that lies `share` of the bin behind its start."""
        return self.start + share * (self.end - self.start)


def depth_bins(depths: int | Sequence[float]) -> tuple[DepthBin, ...]:
    """Bins for a number of them, or for the depths themselves.

    Parameters
    ----------
    depths : int or sequence of float
        So many equal bins of [0, 1], a key at a random place of each; or depths in [0, 1], keys
        at the nearest end of a sentence.

    Raises
    ------
    PlanError
        ``request_absurd``.
    """
    wanted = (
        [
            DepthBin(index / depths, (index + 0.5) / depths, (index + 1) / depths)
            for index in range(depths)
        ]
        if isinstance(depths, int)
        else [DepthBin(depth, depth, depth) for depth in sorted(set(depths))]
    )
    if not wanted:
        raise PlanError(code="request_absurd", message="at least one depth is needed")
    if len(wanted) > _MOST or not 0 <= wanted[0].start <= wanted[-1].end <= 1:
        raise PlanError(
            code="request_absurd",
            message=f"depths {depths!r}; up to {_MOST} bins, or up to {_MOST} depths from 0 (the "
            "beginning) to 1 (just before the question)",
        )
    return tuple(wanted)
