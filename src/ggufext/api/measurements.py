"""Measurements: how attention of a model falls with distance."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ggufext.api.names import local_path
from ggufext.arguments import public
from ggufext.attention import measure as measuring
from ggufext.attention.measure import MeasureProgress
from ggufext.attention.request import MeasureRequest
from ggufext.attention.results import MeasureResult
from ggufext.audit.conditions import permission

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ggufext.api.audits import CopyNeeded

__all__ = ["MeasureProgress", "MeasureRequest", "MeasureResult", "measure"]


@public
def measure(
    path: Path | str,
    request: MeasureRequest,
    *,
    allow_copy: bool | Callable[[CopyNeeded], bool] = False,
    notify: Callable[[MeasureProgress], None] = lambda _: None,
) -> MeasureResult:
    """Measure how attention of a model falls with distance; nothing is written to its file.

    Parameters
    ----------
    path : Path or str
    request : MeasureRequest
        How much text to read, which distances, which conditions.
    allow_copy : bool or callable
        As of `check`.
    notify : callable
        Hears of every piece of text that was read.

    Returns
    -------
    MeasureResult
        A description of the model, which nothing passes or fails. ``run.complete`` is False after
        Ctrl-C or the engine's death; ``run.stop`` says why.

    Raises
    ------
    HeaderError, PlanError, EngineError
        Before a condition was measured; see `ggufext.attention.measure.measure`.
    """
    return measuring.measure(
        local_path(path), request, allow_copy=permission(allow_copy), notify=notify
    )
