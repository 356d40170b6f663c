"""Audits: what a model still finds at every length and depth, and reports on that."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ggufext.api.names import local_path
from ggufext.arguments import public
from ggufext.audit import report
from ggufext.audit.engines.connection import ServerSettings
from ggufext.audit.findings.results import CheckResult
from ggufext.audit.findings.summary import result_of
from ggufext.audit.passkey_file import LocalSettings, check_file
from ggufext.audit.passkey_server import check_server
from ggufext.audit.request import Mode
from ggufext.audit.run.asking import Progress
from ggufext.audit.run.measure import PasskeyRequest, RunNotes, Template

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "CheckResult",
    "LocalSettings",
    "Mode",
    "PasskeyRequest",
    "Progress",
    "RunNotes",
    "ServerSettings",
    "Template",
    "check",
    "write_report",
]


@public
def write_report(result: CheckResult, path: Path | str) -> None:
    """Write a report in the format of its ending: .html, .png or .json.

    What stood there before stays until the new report is on the disk.

    Raises
    ------
    GgufextError
        ``report_format``, ``report_folder``, ``report_extra_missing``, ``report_not_written``.
    """
    report.write_report(result, Path(path))


@public
def check(
    model: Path | str | ServerSettings,
    request: PasskeyRequest,
    *,
    settings: LocalSettings | None = None,
    threshold: float = 0.8,
    allow_copy: bool = False,
    notify: Callable[[Progress | RunNotes], None] | None = None,
) -> CheckResult:
    """Ask a model for hidden keys at every length and depth; nothing is written to its file.

    Parameters
    ----------
    model : Path, str or ServerSettings
        A file, or the address of an OpenAI-compatible server.
    request : PasskeyRequest
        What to ask: lengths, depths, trials, conditions.
    settings : LocalSettings, optional
        How to run llama.cpp on a file.
    threshold : float
        Accuracy that the effective length asks for, in (0, 1].
    allow_copy : bool
        Make a temporary copy of the file for a condition that needs factor tensors.
    notify : callable, optional
        Hears what is known before the first question, and every answer.

    Returns
    -------
    CheckResult
        ``complete`` is False after Ctrl-C or the engine's death; `warnings` says why.

    Raises
    ------
    HeaderError, PlanError, EngineError
        Before the first question; see `ggufext.audit.passkey_file.check_file` and
        `ggufext.audit.passkey_server.check_server`.
    ValueError
        `settings` with a server: it runs the model in its own way.
    """
    notify = notify or (lambda _event: None)
    if isinstance(model, ServerSettings):
        if settings is not None:
            raise ValueError("settings are for a file: a server runs the model in its own way")
        run = check_server(model, request, notify)
        return result_of(run, request, model, threshold=threshold)
    settings = settings or LocalSettings()
    run = check_file(local_path(model), request, settings, notify, allow_copy=lambda _: allow_copy)
    return result_of(run, request, settings, threshold=threshold)
