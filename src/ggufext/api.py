"""The public functions, in the order of the work: read, plan, rewrite, undo, recover, check."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ggufext.audit.passkey import PasskeyRequest
from ggufext.audit.passkey_file import LocalSettings, check_file
from ggufext.audit.results import CheckResult
from ggufext.audit.summary import result_of
from ggufext.editing.inspection import Inspection, facts_of, inspect
from ggufext.editing.rewrite import Receipt, Rewritten, Undone, recover, rewrite, undo
from ggufext.header.header import Header
from ggufext.header.model import ModelFacts, model_facts
from ggufext.header.reading import read_header
from ggufext.planning.combining import Factors
from ggufext.planning.methods import Method
from ggufext.planning.plan import plan as plan_facts
from ggufext.planning.plan import plan_all_methods
from ggufext.planning.recipe import Recipe, decode_recipe
from ggufext.planning.result import Plan
from ggufext.planning.run_time import dynamic, self_extend

if TYPE_CHECKING:
    from collections.abc import Callable

    from ggufext.audit.passkey import RunNotes
    from ggufext.audit.results import Trial

__all__ = [
    "CheckResult",
    "Factors",
    "Header",
    "Inspection",
    "LocalSettings",
    "Method",
    "ModelFacts",
    "PasskeyRequest",
    "Plan",
    "Receipt",
    "Recipe",
    "Rewritten",
    "Undone",
    "check",
    "decode_recipe",
    "dynamic",
    "inspect",
    "model_facts",
    "plan",
    "plan_all_methods",
    "read_header",
    "recover",
    "rewrite",
    "self_extend",
    "undo",
]


def plan(
    model: Path | str | ModelFacts,
    *,
    target_length: int,
    method: Method = Method.GAMMA,
    gamma: float | None = None,
    freq_base: float | None = None,
    factors: Factors | None = None,
    keep_short: bool = False,
    train_length: int | None = None,
    allow_lower_base: bool = False,
    force: bool = False,
) -> Plan:
    """Plan one method for a model file or for facts already read; nothing is written.

    Parameters
    ----------
    model : Path, str or ModelFacts
        A file that was extended before is planned from its original facts.
    train_length : int, optional
        The real training length in tokens, where a file says something else.
    target_length, method, gamma, freq_base, factors, keep_short, allow_lower_base, force
        See `ggufext.planning.plan.plan`.

    Raises
    ------
    HeaderError, PlanError
    """
    facts = model if isinstance(model, ModelFacts) else facts_of(model, train_length=train_length)
    return plan_facts(
        facts,
        target_length=target_length,
        method=method,
        gamma=gamma,
        freq_base=freq_base,
        factors=factors,
        keep_short=keep_short,
        allow_lower_base=allow_lower_base,
        force=force,
    )


def check(
    path: Path | str,
    request: PasskeyRequest,
    *,
    settings: LocalSettings | None = None,
    threshold: float = 0.8,
    notify: Callable[[Trial | RunNotes], None] | None = None,
) -> CheckResult:
    """Ask a model file for hidden keys at every length and depth; nothing is written to it.

    Parameters
    ----------
    path : Path or str
    request : PasskeyRequest
        What to ask: lengths, depths, trials, conditions.
    settings : LocalSettings, optional
        How to run llama.cpp.
    threshold : float
        Accuracy that the effective length asks for, in (0, 1].
    notify : callable, optional
        Hears what is known before the first question, and every trial.

    Returns
    -------
    CheckResult
        ``complete`` is False after Ctrl-C or the engine's death; `warnings` says why.

    Raises
    ------
    HeaderError, PlanError, EngineError
        Before the first question; see `ggufext.audit.passkey_file.check_file`.
    """
    settings = settings or LocalSettings()
    run = check_file(Path(path), request, settings, notify or (lambda _event: None))
    return result_of(run, request, settings, threshold=threshold)
