"""Plans: what is asked for, what would be written, and what to expect of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ggufext.api.names import find_model
from ggufext.arguments import public
from ggufext.header import facts
from ggufext.header.facts import ModelFacts
from ggufext.header.header import read_header
from ggufext.header.shards import later_shards
from ggufext.opened import model as opened
from ggufext.opened import recipe as recipes
from ggufext.planning import footprint, run_time
from ggufext.planning import plan as planning
from ggufext.planning import request as requests
from ggufext.planning.evidence import Evidence, Measurement
from ggufext.planning.footprint import CacheFit, CacheType
from ggufext.planning.gamma import Verdict
from ggufext.planning.measured import Measured, Recommended
from ggufext.planning.methods import Method, RunTimeMethod
from ggufext.planning.model_records import Comparison
from ggufext.planning.request import Factors, PlanRequest, Recipe, YarnRecipe
from ggufext.planning.result import Plan
from ggufext.planning.run_time import DynamicPlan, SelfExtendPlan

if TYPE_CHECKING:
    from ggufext.locating.remote import RemoteModel

__all__ = [
    "CacheFit",
    "CacheType",
    "Comparison",
    "DynamicPlan",
    "Evidence",
    "Factors",
    "Measured",
    "Measurement",
    "Method",
    "ModelFacts",
    "Plan",
    "PlanRequest",
    "Recipe",
    "Recommended",
    "RunTimeMethod",
    "SelfExtendPlan",
    "Verdict",
    "YarnRecipe",
    "cache_fits",
    "decode_recipe",
    "documented_plan",
    "dynamic",
    "facts_of",
    "model_facts",
    "plan",
    "plan_all_methods",
    "read_recipe",
    "self_extend",
]

decode_recipe = public(requests.decode_recipe)
documented_plan = public(planning.documented_plan)
dynamic = public(run_time.dynamic)
model_facts = public(facts.model_facts)
plan_all_methods = public(planning.plan_all_methods)
read_recipe = public(recipes.read_recipe)
self_extend = public(run_time.self_extend)


@public
def facts_of(model: Path | str | RemoteModel, request: PlanRequest | None = None) -> ModelFacts:
    """Facts that a plan for a model starts from: those of its training, before any extension.

    Parameters
    ----------
    model : Path, str or RemoteModel
        A GGUF file, a Hugging Face config.json or its folder, a name that `find_model`
        understands, or a remote header already read.
    request : PlanRequest, optional
        Says what the model was really trained with, where the file says something else; its
        recipe must have been made for this model, unless it is forced.

    Raises
    ------
    HeaderError, PlanError, LocationError
    """
    # Few models are named by one.
    from ggufext.header.hf_config import config_file, read_config

    train_length = request.train_length if request else None
    if isinstance(model, (Path, str)):
        model = find_model(model)
    if isinstance(model, Path) and (config := config_file(model)):
        return read_config(config, train_length=train_length).facts
    return opened.facts_of(model, request)


@public
def plan(model: Path | str | ModelFacts, request: PlanRequest) -> Plan:
    """Plan one method for a model file or for facts already read; nothing is written.

    Parameters
    ----------
    model : Path, str or ModelFacts
        As for `facts_of`, which reads facts for several plans once.
    request : PlanRequest
        Facts already read were read with its `train_length` and `train_freq_base`.

    Raises
    ------
    HeaderError, PlanError, LocationError
    """
    facts = model if isinstance(model, ModelFacts) else facts_of(model, request)
    return planning.plan(facts, request)


@public
def cache_fits(
    model: Path | str | RemoteModel, facts: ModelFacts, target_length: int, *, memory: int
) -> tuple[CacheFit, ...]:
    """Which types of KV cache fit into a memory beside a model's weights and compute buffers.

    Parameters
    ----------
    model : Path, str or RemoteModel
        A GGUF file, whose tensors count.
    facts : ModelFacts
    target_length : int
        Context length in tokens.
    memory : int
        Bytes that hold everything.

    Raises
    ------
    HeaderError, LocationError
    """
    from ggufext.header.weights import model_widths  # few plans need it

    if isinstance(model, (Path, str)):
        model = find_model(model)
    first = read_header(model) if isinstance(model, Path) else model.header
    shards = (first, *later_shards(first))
    weights = sum(header.data_end - header.data_offset for header in shards)
    return footprint.cache_fits(
        facts.layers, target_length, widths=model_widths(first), weights=weights, memory=memory
    )
