"""The public functions, in the order of the work: read, plan, rewrite, undo, recover."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ggufext.editing.inspection import Inspection, facts_of, inspect
from ggufext.editing.rewrite import Receipt, Rewritten, Undone, recover, rewrite, undo
from ggufext.errors import PlanError
from ggufext.header.header import Header
from ggufext.header.model import ModelFacts, model_facts
from ggufext.header.reading import read_header
from ggufext.planning.methods import Method
from ggufext.planning.plan import Plan
from ggufext.planning.plan import plan as plan_facts

if TYPE_CHECKING:
    from pathlib import Path

__all__ = [
    "Header",
    "Inspection",
    "Method",
    "ModelFacts",
    "Plan",
    "Receipt",
    "Rewritten",
    "Undone",
    "inspect",
    "model_facts",
    "plan",
    "plan_all_methods",
    "read_header",
    "recover",
    "rewrite",
    "undo",
]


def plan(
    model: Path | str | ModelFacts,
    *,
    target_length: int,
    method: Method = Method.GAMMA,
    gamma: float | None = None,
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
    target_length, method, gamma, allow_lower_base, force
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
        allow_lower_base=allow_lower_base,
        force=force,
    )


def plan_all_methods(
    facts: ModelFacts, *, target_length: int, force: bool = False
) -> tuple[Plan, ...]:
    """A plan of every method that this model can take, in the order of `Method`.

    Raises
    ------
    PlanError
        When no method can be planned; that of the first.
    """
    plans: list[Plan] = []
    refusals: list[PlanError] = []
    for method in Method:
        try:
            plans.append(plan_facts(facts, target_length=target_length, method=method, force=force))
        except PlanError as error:
            refusals.append(error)
    if not plans:
        raise refusals[0]
    return tuple(plans)
