"""The public functions: read, plan, rewrite, undo, recover, diff, check.

Each raises `GgufextError` for what files, models, servers and the system are like, `TypeError` for
an argument of another type than documented, and `ValueError` for a number outside its range.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ggufext import arguments
from ggufext.audit.engines.connection import ServerSettings
from ggufext.audit.findings.results import CheckResult
from ggufext.audit.findings.summary import result_of
from ggufext.audit.passkey_file import LocalSettings, check_file
from ggufext.audit.passkey_server import check_server
from ggufext.audit.run.measure import PasskeyRequest
from ggufext.editing import rewrite as rewriting
from ggufext.editing.rewrite import Receipt, Rewritten, Undone
from ggufext.header import header
from ggufext.header import model as models
from ggufext.header.difference import HeaderDifference, difference
from ggufext.header.header import Header
from ggufext.header.hf_config import config_file, read_config
from ggufext.header.model import ModelFacts
from ggufext.locating.names import is_remote, local_path
from ggufext.locating.remote import read_remote
from ggufext.opened import inspection
from ggufext.opened.inspection import Inspection, facts_of
from ggufext.planning import plan as planning
from ggufext.planning import request as requests
from ggufext.planning import run_time
from ggufext.planning.emit import Emission, Engine
from ggufext.planning.emit import emit as emit_plan
from ggufext.planning.methods import Method
from ggufext.planning.request import Factors, PlanRequest, Recipe
from ggufext.planning.result import Plan

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ggufext.audit.run.asking import Progress
    from ggufext.audit.run.measure import RunNotes

__all__ = [
    "CheckResult",
    "Emission",
    "Engine",
    "Factors",
    "Header",
    "HeaderDifference",
    "Inspection",
    "LocalSettings",
    "Method",
    "ModelFacts",
    "PasskeyRequest",
    "Plan",
    "PlanRequest",
    "Receipt",
    "Recipe",
    "Rewritten",
    "ServerSettings",
    "Undone",
    "check",
    "decode_recipe",
    "diff",
    "dynamic",
    "emit",
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

decode_recipe = arguments.public(requests.decode_recipe)
dynamic = arguments.public(run_time.dynamic)
inspect = arguments.public(inspection.inspect)
model_facts = arguments.public(models.model_facts, unchecked=frozenset({"factors"}))
plan_all_methods = arguments.public(planning.plan_all_methods)
read_header = arguments.public(header.read_header)
recover = arguments.public(rewriting.recover)
rewrite = arguments.public(rewriting.rewrite)
self_extend = arguments.public(run_time.self_extend)
undo = arguments.public(rewriting.undo)


@arguments.public
def plan(model: Path | str | ModelFacts, request: PlanRequest) -> Plan:
    """Plan one method for a model file or for facts already read; nothing is written.

    Parameters
    ----------
    model : Path, str or ModelFacts
        A GGUF file, a Hugging Face config.json or its folder; a file that was extended before is
        planned from its original facts.
    request : PlanRequest
        Facts already read were read with its `train_length` and `train_freq_base`.

    Raises
    ------
    HeaderError, PlanError
    """
    return planning.plan(
        model if isinstance(model, ModelFacts) else _facts(model, request), request
    )


def _facts(model: Path | str, request: PlanRequest) -> ModelFacts:
    config = _config_file(model)
    if config is not None:
        return read_config(config, train_length=request.train_length).facts
    return facts_of(
        model, train_length=request.train_length, train_freq_base=request.train_freq_base
    )


def _config_file(model: Path | str) -> Path | None:
    return None if is_remote(model) else config_file(local_path(model))


@arguments.public
def emit(model: Path | str, made: Plan, engine: Engine) -> Emission:
    """Say a plan in the words of another engine; nothing is written.

    Parameters
    ----------
    model : Path or str
        The GGUF file or config.json that the plan was made for.
    made : Plan
    engine : Engine

    Raises
    ------
    HeaderError, PlanError
    """
    found = _config_file(model)
    config = None if found is None else read_config(found)
    facts = facts_of(model) if config is None else config.facts
    return emit_plan(made, facts, engine, model=str(model), config=config)


@arguments.public
def diff(before: Path | str | Header, after: Path | str | Header) -> HeaderDifference:
    """Compare two headers: keys with their values, tensors with types and shapes.

    Parameters
    ----------
    before, after : Path, str or Header
        A path, a name that `ggufext.locating.names` understands, or a header already read.

    Raises
    ------
    HeaderError, LocationError
    """
    return difference(_header(before), _header(after))


def _header(model: Path | str | Header) -> Header:
    if isinstance(model, Header):
        return model
    if isinstance(model, str) and is_remote(model):
        return read_remote(model).header
    return header.read_header(local_path(model))


@arguments.public
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
