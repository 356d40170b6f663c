"""What plan and rewrite were asked for: options and a recipe, brought together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from ggufext.errors import PlanError
from ggufext.planning.methods import Method, RunTimeMethod
from ggufext.planning.recipe import LONGEST_RECIPE, Recipe, decode_recipe

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Asked:
    """A method, a target and what else a recipe says.

    Attributes
    ----------
    method : Method, RunTimeMethod or None
        None: no method was named.
    target_length : int
        Tokens.
    recipe : Recipe or None
    """

    method: Method | RunTimeMethod | None
    target_length: int
    recipe: Recipe | None


def asked(
    *,
    method: str | None,
    target_length: int | None,
    gamma: float | None,
    factors_path: Path | None,
    result_path: Path | None,
    keep_short: bool,
) -> Asked:
    """Bring the options together; raises click.UsageError where they contradict each other."""
    if factors_path is not None and result_path is not None:
        raise click.UsageError("--factors and --from exclude each other")
    recipe, named = None, _method(method)
    if factors_path is not None:
        recipe = _read(factors_path)
        if recipe.factors is None:
            raise PlanError(
                code="bad_recipe",
                path=factors_path,
                field="plan.long",
                message="is missing; --factors needs a list of factors, --from takes any plan",
            )
        if named not in {None, Method.LONGROPE}:
            raise click.UsageError(f"--factors belongs to --method longrope, not to {method}")
    if result_path is not None:
        recipe = _read(result_path)
        if named is not None:
            raise click.UsageError("--from names the method: leave --method out")
    if recipe is not None:
        named = recipe.method
        target_length = target_length or recipe.target_length
    if target_length is None:
        raise click.UsageError("Missing option '--target'.")
    if isinstance(named, RunTimeMethod) and (gamma is not None or keep_short):
        raise click.UsageError(f"--gamma and --keep-short do not belong to --method {method}")
    return Asked(named, target_length, recipe)


def _method(name: str | None) -> Method | RunTimeMethod | None:
    if name is None:
        return None
    run_time = {method.value: method for method in RunTimeMethod}
    return run_time.get(name) or Method(name)


def _read(path: Path) -> Recipe:
    with path.open(encoding="utf-8", errors="replace") as file:
        text = file.read(LONGEST_RECIPE + 1)
    try:
        return decode_recipe(text)
    except PlanError as error:
        error.path = path
        raise
