"""Plans of run-time methods as text: what to tell llama.cpp instead of writing a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ggufext.cli.output import show_json
from ggufext.errors import command, printable
from ggufext.json_text import jsonable
from ggufext.planning.methods import RunTimeMethod
from ggufext.planning.run_time import dynamic, self_extend

if TYPE_CHECKING:
    from pathlib import Path

    from ggufext.header.model import ModelFacts
    from ggufext.planning.request import PlanRequest
    from ggufext.planning.run_time import DynamicPlan, SelfExtendPlan


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
        shown = jsonable(made)
        assert isinstance(shown, dict)
        show_json({"path": str(path), **shown})
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
        f"{made.largest_position:,} positions of {made.train_length:,} trained ones",
        f"llama-completion {made.options}",
        f"llama-server has no such options; measure it with {command('check', path, *measuring)}",
    ]
