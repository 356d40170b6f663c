"""What plan and rewrite are asked for: options and a recipe, brought together."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ggufext.opened.model import read_recipe
from ggufext.planning.methods import Method, RunTimeMethod
from ggufext.planning.request import PlanRequest

if TYPE_CHECKING:
    from pathlib import Path


def asked(
    *,
    method: str | None,
    target_length: int | None,
    recipe_path: Path | None,
    gamma: float | None,
    keep_short: bool,
    train_length: int | None,
    train_freq_base: float | None,
    allow_lower_base: bool,
    force: bool,
) -> tuple[Method | RunTimeMethod | None, PlanRequest]:
    """The method that was named, by an option or a recipe, and the request; of gamma without one.

    Raises
    ------
    click.UsageError
        The options contradict each other.
    PlanError
        ``bad_recipe``.
    """
    named = _method(method)
    recipe = read_recipe(recipe_path) if recipe_path else None
    if isinstance(named, RunTimeMethod) and (gamma is not None or keep_short or recipe):
        raise click.UsageError(
            f"--gamma, --keep-short and --recipe do not belong to --method {method}"
        )
    if recipe is not None:
        if named not in {None, recipe.method}:
            raise click.UsageError(
                f"--recipe says method {recipe.method.value}: leave --method out"
            )
        named = recipe.method
        target_length = target_length or recipe.target_length
    if target_length is None:
        raise click.UsageError("Missing option '--target'.")
    return named, PlanRequest(
        target_length=target_length,
        method=named if isinstance(named, Method) else Method.GAMMA,
        gamma=gamma,
        recipe=recipe,
        keep_short=keep_short,
        train_length=train_length,
        train_freq_base=train_freq_base,
        allow_lower_base=allow_lower_base,
        force=force,
    )


def _method(name: str | None) -> Method | RunTimeMethod | None:
    if name is None:
        return None
    run_time = {method.value: method for method in RunTimeMethod}
    return run_time.get(name) or Method(name)
