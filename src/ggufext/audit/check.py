"""The audit of a model, in a file or behind a server: one way from a request to a result."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ggufext.audit.conditions import refuse_copies
from ggufext.audit.findings.summary import result_of
from ggufext.audit.request import ServerSettings
from ggufext.audit.run.file_run import file_run
from ggufext.audit.run.measure import measure
from ggufext.audit.run.server_run import server_run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ggufext.audit.conditions import CopyNeeded
    from ggufext.audit.findings.results import CheckResult
    from ggufext.audit.request import CheckRequest
    from ggufext.audit.run.measure import Computing, Measured, Preparing, Progress, RunNotes

    Notify = Callable[[Preparing | RunNotes | Computing | Progress], None]


def check(
    model: Path | ServerSettings,
    request: CheckRequest,
    *,
    allow_copy: Callable[[CopyNeeded], bool] = refuse_copies,
    notify: Notify = lambda _: None,
) -> CheckResult:
    """Audit a model; nothing is written to its file.

    Parameters
    ----------
    model : Path or ServerSettings
        A GGUF file, of a split model the first shard; or a server, or several, which are asked in
        plain text or (`Template.CHAT`) as a user of a chat.
    request : CheckRequest
        The only condition of a server is ``"file"``: it runs what it has loaded.
    allow_copy : callable
        Asked before a temporary copy is made for a condition that needs one.
    notify : callable
        Hears `Preparing` and then `RunNotes` before the first question, `Computing` meanwhile, and
        `Progress` with every answer.

    Returns
    -------
    CheckResult
        Complete, or what was measured until Ctrl-C or the engine's death.

    Raises
    ------
    HeaderError, PlanError
        The file, a condition or a length cannot be audited; of a server ``bad_condition``
        and ``request_absurd``.
    EngineError
        Before the first question: ``cannot_be_audited``,
        ``length_too_short``, ``no_chat_template``, ``rope_mismatch``, ``out_of_memory``,
        ``extra_missing``, ``engine_died``, ``engine_unreachable``, ``server_not_understood``,
        ``servers_differ``, ``worker_differs``, ``not_llama_server`` …
    """
    return result_of(measure_model(model, request, allow_copy=allow_copy, notify=notify))


def measure_model(
    model: Path | ServerSettings,
    request: CheckRequest,
    *,
    allow_copy: Callable[[CopyNeeded], bool] = refuse_copies,
    notify: Notify = lambda _: None,
) -> Measured:
    """The run of `check` with every single answer."""
    ready = (
        server_run(model, request)
        if isinstance(model, ServerSettings)
        else file_run(model, request, allow_copy, notify)
    )
    with ready as prepared:
        return measure(prepared, notify)
