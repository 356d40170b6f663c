"""Comparisons: which scaling works on a model, measured on the same texts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ggufext.api.names import local_path
from ggufext.arguments import public
from ggufext.comparison import compare as comparing
from ggufext.comparison.measure import CompareNotes, CompareProgress
from ggufext.comparison.request import CompareRequest
from ggufext.comparison.results import CompareResult

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ggufext.audit.conditions import CopyNeeded
    from ggufext.audit.run.measure import Computing, Preparing

__all__ = [
    "CompareNotes",
    "CompareProgress",
    "CompareRequest",
    "CompareResult",
    "compare",
]


@public
def compare(
    path: Path | str,
    request: CompareRequest,
    *,
    allow_copy: bool | Callable[[CopyNeeded], bool] = False,
    notify: Callable[[Preparing | CompareNotes | Computing | CompareProgress], None] = lambda _: (
        None
    ),
) -> CompareResult:
    """Measure which scaling works on a model; nothing is written to its file.

    Every condition reads the same texts once, up to the target: what each text really says is
    scored by position, and at every length keys that stand in the text are asked for. Within the
    training length distributions are compared with native's.

    Parameters
    ----------
    path : Path or str
    request : CompareRequest
    allow_copy : bool or callable
        Make a temporary copy of the file for a condition that needs factor tensors, and measure
        llama3 without being asked to; or asked with a `CopyNeeded` before each.
    notify : callable
        Hears `Preparing` and then `CompareNotes` before the first cell, `Computing` meanwhile, and
        `CompareProgress` as the run goes on.

    Returns
    -------
    CompareResult
        ``run.complete`` is False after Ctrl-C or the engine's death; ``run.stop`` says why. Its
        JSON is a recipe for the model where something is recommended.

    Raises
    ------
    HeaderError, PlanError, EngineError
        Before the first cell; see `ggufext.comparison.compare.compare`.
    """
    return comparing.compare(local_path(path), request, allow_copy=allow_copy, notify=notify)
