"""What plan and rewrite share: options and a recipe brought together, a plan as text and JSON."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ggufext.api.plans import (
    Method,
    PlanRequest,
    RunTimeMethod,
    dynamic,
    read_recipe,
    self_extend,
)
from ggufext.cli.options import TOKENS, train_freq_base_option, train_length_option
from ggufext.cli.output import show_json
from ggufext.errors import command, printable, printable_message
from ggufext.presenting.documents import RunTimePlanned

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ggufext.api.emissions import Emission
    from ggufext.api.plans import DynamicPlan, ModelFacts, SelfExtendPlan


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
        keep_short = keep_short or recipe.keep_short
        train_length = train_length or recipe.train_length
        train_freq_base = train_freq_base or recipe.train_freq_base
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


def show_run_time(
    path: Path | str,
    facts: ModelFacts,
    method: RunTimeMethod,
    request: PlanRequest,
    *,
    as_json: bool,
) -> None:
    """Print the plan of a run-time method."""
    made: DynamicPlan | SelfExtendPlan
    target_length, force = request.target_length, request.force
    if method is RunTimeMethod.DYNAMIC:
        made = dynamic(facts, target_length=target_length, force=force)
        lines = _dynamic(made)
    else:
        made = self_extend(facts, target_length=target_length, force=force)
        lines = _self_extend(path, made)
    if as_json:
        show_json(RunTimePlanned(str(path), made))
        return
    name = click.style(printable(str(path)), bold=True)
    click.echo(f"{name}: {method.value} to {target_length:,} tokens; nothing to write")
    for line in lines:
        click.echo(f"  {line}")


def _dynamic(made: DynamicPlan) -> list[str]:
    rows = [f"{row.length:>12,}  {row.options}" for row in made.rows]
    return [
        "the base depends on the length of the context: choose the row that serves,",
        "and give its options to llama-cli, llama-server or any program of llama.cpp",
        *rows,
    ]


def _self_extend(path: Path | str, made: SelfExtendPlan) -> list[str]:
    condition = f"self-extend:g={made.group},w={made.window}"
    measuring = ("--lengths", str(made.target_length), "--condition", condition)
    return [
        f"groups of {made.group} tokens share a position beyond {made.window:,} neighbours: "
        f"{made.target_length:,} tokens take",
        f"{made.largest_position:,} positions of {made.train_length.value:,} trained ones",
        f"llama-completion {made.options}",
        f"llama-server has no such options; measure it with {command('check', path, *measuring)}",
    ]


def show_emissions(emitted: Mapping[Method, tuple[Emission, ...]]) -> None:
    """Print blocks as they are to be pasted, and what cannot be said."""
    for method, found in emitted.items():
        for emission in found:
            head = f"\n# {emission.engine.value}, {method.value}"
            for block in emission.blocks:
                click.echo(f"{head}: {block.title}")
                click.echo(block.text)
            if emission.not_expressible is not None:
                reason = printable(emission.not_expressible)
                click.echo(f"{head}: not expressible there: {reason}")
            for note in emission.notes:
                click.echo(f"# note: {printable_message(note)}")
