"""Tuning: a search for better scaling than the closed forms, measured on the model itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ggufext.api.names import local_path
from ggufext.arguments import public
from ggufext.audit.conditions import permission
from ggufext.tuning import tune as tuning
from ggufext.tuning.request import TuneRequest
from ggufext.tuning.results import TuneResult
from ggufext.tuning.tune import TuneProgress

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ggufext.api.audits import CopyNeeded

__all__ = ["TuneProgress", "TuneRequest", "TuneResult", "tune"]


@public
def tune(
    path: Path | str,
    request: TuneRequest,
    *,
    allow_copy: bool | Callable[[CopyNeeded], bool] = False,
    notify: Callable[[TuneProgress], None] = lambda _: None,
) -> TuneResult:
    """Search for a scaling that is better than the closed forms; nothing is written to the file.

    What attention reads of one text is captured once, and candidates are screened by it without
    running the model; the best are run on few texts, the best of those on many. The result is kept
    only if it beats the best closed form on held-out texts beyond the interval.

    Parameters
    ----------
    path : Path or str
    request : TuneRequest
    allow_copy : bool or callable
        As of `check`; ``metadata_only`` of the request leaves out what needs one.
    notify : callable
        Hears how far it is.

    Returns
    -------
    TuneResult
        ``run.complete`` is False after Ctrl-C or the engine's death; ``run.stop`` says why. Its
        JSON is a recipe for the model. Ctrl-C in the screen is a `KeyboardInterrupt`.

    Raises
    ------
    HeaderError, PlanError, EngineError
        Before the first cell; see `ggufext.tuning.tune.tune`.
    """
    return tuning.tune(local_path(path), request, allow_copy=permission(allow_copy), notify=notify)
