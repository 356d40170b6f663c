"""Audits: what a model still finds at every length and depth; reports on all that is measured."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from ggufext.api.names import local_path
from ggufext.arguments import public
from ggufext.attention.results import MeasureResult
from ggufext.audit import check as auditing
from ggufext.audit import report
from ggufext.audit.conditions import CopyNeeded, permission
from ggufext.audit.findings import summary
from ggufext.audit.findings.results import CheckResult
from ggufext.audit.request import CheckRequest, LocalSettings, Mode, ServerSettings, Template
from ggufext.audit.run.measure import Computing, Preparing, Progress, RunNotes
from ggufext.comparison.results import CompareResult
from ggufext.tuning.results import TuneResult

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "CheckRequest",
    "CheckResult",
    "Computing",
    "CopyNeeded",
    "LocalSettings",
    "Mode",
    "Preparing",
    "Progress",
    "RunNotes",
    "ServerSettings",
    "Template",
    "bound_missed",
    "bound_out_of_reach",
    "check",
    "check_report_path",
    "print_report",
    "write_report",
]

#: Where the reports of a result are made; they load rich.
_REPORTS = {
    CheckResult: "ggufext.audit.report",
    CompareResult: "ggufext.comparison.report",
    MeasureResult: "ggufext.attention.report",
    TuneResult: "ggufext.tuning.report",
}

bound_missed = public(summary.bound_missed)
bound_out_of_reach = public(summary.bound_out_of_reach)


@public
def check(
    model: Path | str | ServerSettings,
    request: CheckRequest,
    *,
    allow_copy: bool | Callable[[CopyNeeded], bool] = False,
    notify: Callable[[Preparing | RunNotes | Computing | Progress], None] = lambda _: None,
) -> CheckResult:
    """Ask a model for hidden keys at every length and depth; nothing is written to its file.

    Parameters
    ----------
    model : Path, str or ServerSettings
        A file, or the address of an OpenAI-compatible server, or of several that share the texts.
    request : CheckRequest
        What to ask: lengths, depths, trials, conditions; how to run llama.cpp on a file.
    allow_copy : bool or callable
        Make a temporary copy of the file for a condition that needs factor tensors; or asked with
        a `CopyNeeded` before each.
    notify : callable
        Hears `Preparing` and then `RunNotes` before the first question, `Computing` meanwhile, and
        `Progress` with every answer.

    Returns
    -------
    CheckResult
        ``run.complete`` is False after Ctrl-C or the engine's death; ``run.stop`` says why.

    Raises
    ------
    HeaderError, PlanError, EngineError
        Before the first question; see `ggufext.audit.check.check`.
    ValueError
        `request.engine` with a server: it runs the model in its own way.
    """
    if isinstance(model, ServerSettings):
        if request.engine is not None:
            raise ValueError("request.engine: a server runs the model in its own way")
    else:
        model = local_path(model)
    return auditing.check(model, request, allow_copy=permission(allow_copy), notify=notify)


@public
def check_report_path(path: Path | str, *, inputs: tuple[Path, ...] = ()) -> None:
    """Refuse a report that could not be written, before hours of measuring.

    Parameters
    ----------
    path : Path or str
    inputs : tuple of Path
        Files of the run, which a report must not replace.

    Raises
    ------
    GgufextError
        ``report_path``, ``extra_missing``.
    """
    report.check_report_path(Path(path), inputs=inputs)


@public
def write_report(
    result: CheckResult | CompareResult | MeasureResult | TuneResult, path: Path | str
) -> None:
    """Write a report in the format of its ending: .html, .png or .json.

    What stood there before stays until the new report is on the disk.

    Raises
    ------
    GgufextError
        What `check_report_path` raises; ``report_not_written``.
    """
    import_module(_REPORTS[type(result)]).write_report(result, Path(path))


@public
def print_report(result: CheckResult | CompareResult | MeasureResult | TuneResult) -> None:
    """Print the report of a terminal: pictures or tables, and the sentences beside them."""
    import_module(f"{_REPORTS[type(result)]}.terminal").print_report(result)
