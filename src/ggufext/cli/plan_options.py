"""What plan and rewrite are asked for: options and a recipe, brought together."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ggufext.api.plans import Method, PlanRequest, RunTimeMethod, read_recipe
from ggufext.cli.options import TOKENS, train_freq_base_option, train_length_option

if TYPE_CHECKING:
    from collections.abc import Callable

_Command = TypeVar("_Command", bound="Callable[..., Any]")


def plan_options(*, method_help: str) -> Callable[[_Command], _Command]:
    """The options that `asked` takes, but for --force."""
    methods = [method.value for method in (*Method, *RunTimeMethod)]
    options = (
        click.option(
            "--target",
            "target_length",
            type=TOKENS,
            help="Context length wanted: 32k, 1m. Without it that of --recipe.",
        ),
        click.option(
            "--method", type=click.Choice(methods, case_sensitive=False), help=method_help
        ),
        click.option(
            "--gamma",
            type=click.FloatRange(-1, 1, min_open=True, max_open=True),
            help="Decay exponent wanted at the target, for method gamma; the native one is kept "
            "without.",
        ),
        click.option(
            "--recipe",
            "recipe_path",
            metavar="FILE",
            type=click.Path(path_type=Path),
            help="Method, and base or factors for it, as this JSON file says (docs/methods.md).",
        ),
        click.option(
            "--keep-short",
            is_flag=True,
            help="Write long factors: contexts up to the training length stay exactly as they are.",
        ),
        train_length_option,
        train_freq_base_option,
        click.option(
            "--allow-lower-base", is_flag=True, help="Accept a --gamma that lowers the RoPE base."
        ),
    )

    def add(command: _Command) -> _Command:
        for option in reversed(options):
            command = option(command)
        return command

    return add


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
