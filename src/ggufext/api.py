"""The public functions: read, plan, rewrite, undo, recover, diff, check.

Each raises `GgufextError` for what files, models, servers and the system are like, `TypeError` for
an argument of another type than documented, and `ValueError` for a number outside its range.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ggufext import arguments
from ggufext.audit import check as auditing
from ggufext.audit.conditions import CopyNeeded
from ggufext.audit.findings import summary
from ggufext.audit.findings.results import CheckResult
from ggufext.audit.request import CheckRequest, LocalSettings, Mode, ServerSettings, Template
from ggufext.audit.run.measure import Progress, RunNotes
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
from ggufext.opened.inspection import Inspection
from ggufext.opened.model import facts_of
from ggufext.planning import plan as planning
from ggufext.planning import request as requests
from ggufext.planning import run_time
from ggufext.planning.emit import Emission, Engine
from ggufext.planning.emit import emit as emit_plan
from ggufext.planning.footprint import CacheType
from ggufext.planning.methods import Method
from ggufext.planning.request import Factors, PlanRequest, Recipe
from ggufext.planning.result import Plan

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


__all__ = [
    "CacheType",
    "CheckRequest",
    "CheckResult",
    "CopyNeeded",
    "Emission",
    "Engine",
    "Factors",
    "Header",
    "HeaderDifference",
    "Inspection",
    "LocalSettings",
    "Method",
    "Mode",
    "ModelFacts",
    "Plan",
    "PlanRequest",
    "Progress",
    "Receipt",
    "Recipe",
    "Rewritten",
    "RunNotes",
    "ServerSettings",
    "Template",
    "Undone",
    "bound_missed",
    "bound_out_of_reach",
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

bound_missed = arguments.public(summary.bound_missed)
bound_out_of_reach = arguments.public(summary.bound_out_of_reach)
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
    return facts_of(model, request)


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
    request: CheckRequest,
    *,
    allow_copy: bool | Callable[[CopyNeeded], bool] = False,
    notify: Callable[[Progress | RunNotes], None] = lambda _: None,
) -> CheckResult:
    """Ask a model for hidden keys at every length and depth; nothing is written to its file.

    Parameters
    ----------
    model : Path, str or ServerSettings
        A file, or the address of an OpenAI-compatible server.
    request : CheckRequest
        What to ask: lengths, depths, trials, conditions; how to run llama.cpp on a file.
    allow_copy : bool or callable
        Make a temporary copy of the file for a condition that needs factor tensors; or asked with
        a `CopyNeeded` before each.
    notify : callable
        Hears `RunNotes` before the first question, and `Progress` with every answer.

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
    asked = allow_copy if callable(allow_copy) else lambda _: allow_copy
    return auditing.check(model, request, allow_copy=asked, notify=notify)
