"""``ggufext plan``: what could be written, and what to expect of it."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ggufext.api import emissions, plans
from ggufext.api.emissions import Engine
from ggufext.api.plans import RunTimeMethod, Verdict
from ggufext.cli.documents import PlannedModel, PlannedModels
from ggufext.cli.options import Size, found_model, json_option, path_argument
from ggufext.cli.output import measure_name, measured_value, show_json, show_warnings
from ggufext.cli.planning import (
    asked,
    cache_sizes,
    factors_of_pairs,
    head_line,
    plan_lines,
    plan_options,
    recommendation_lines,
    show_emissions,
    show_run_time,
)
from ggufext.cli.waiting import waiting
from ggufext.errors import PlanError
from ggufext.text import binary_size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ggufext.api.plans import CacheFit, Measured, Plan


class Engines(click.ParamType["tuple[Engine, ...]"]):
    """Names of engines, separated by commas."""

    name = "engines"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[Engine, ...]:
        """Engines in the order given, each once."""
        names = dict.fromkeys(part.strip().lower() for part in str(value).split(","))
        known = {engine.value: engine for engine in Engine}
        for name in names:
            if name not in known:
                self.fail(f"{name!r} is no engine: {', '.join(known)}", param, ctx)
        return tuple(known[name] for name in names)


@click.command(short_help="Show what could be written and what to expect.")
@path_argument
@plan_options(method_help="Plan this one; every method side by side without.")
@click.option(
    "--emit",
    "engines",
    type=Engines(),
    metavar="ENGINE,...",
    help="Print the plan for hf, vllm, llama.cpp, ollama, koboldcpp, lmstudio.",
)
@click.option(
    "--vram",
    type=Size("bytes", "kmgt"),
    help="Memory that must hold weights, KV cache and compute buffers: 12g.",
)
@click.option(
    "--force",
    is_flag=True,
    help="Plan a factor above 1024, a method that changes sliding-window layers, or a recipe of "
    "another model.",
)
@json_option
def plan(
    path: Path | str,
    engines: tuple[Engine, ...] | None,
    vram: int | None,
    force: bool,
    as_json: bool,
    **wished: Any,
) -> None:
    """Show what an extension would write and what to expect of it; nothing is written.

    FILE is a GGUF file, or a Hugging Face config.json or the folder that holds one.
    """
    named, request = asked(force=force, **wished)
    if request.gamma is not None and named is None:
        raise click.UsageError("--gamma belongs to --method gamma")
    with waiting("reading the header") as wait:
        model = found_model(path, wait)
    path = model if isinstance(model, Path) else model.name
    config = emissions.read_config(model, train_length=request.train_length)
    if config is not None and request.train_freq_base is not None:
        raise click.UsageError("--train-freq-base is for a GGUF file: edit rope_theta instead")
    facts = config.facts if config else plans.facts_of(model, request)
    with _naming(path):
        if isinstance(named, RunTimeMethod):
            show_run_time(path, facts, named, request, as_json=as_json)
            return
        documented: Plan | None = None
        if named is None:
            documented = plans.documented_plan(facts, force=force)
            made = plans.plan_all_methods(facts, request)
        else:
            made = (plans.plan(facts, request),)
    if vram is not None and config is not None:
        raise click.UsageError("--vram needs the weights of a GGUF file; this is a configuration")
    if engines is None:
        engines = (Engine.HF,) if config and named else ()
    emitted = {
        each.method: tuple(
            emissions.emit(path, each, engine, known=config or facts) for engine in engines
        )
        for each in made
    }
    length = request.target_length
    fits = () if vram is None else plans.cache_fits(model, facts, length, memory=vram)
    if as_json:
        plans_made = tuple(
            PlannedModel(str(path), each, emitted[each.method], fits) for each in made
        )
        said = PlannedModel(str(path), documented) if documented else None
        show_json(plans_made[0] if named else PlannedModels(plans_made, said))
        return
    if named is None and made[0].verdict is not Verdict.NO_EXTENSION_NEEDED:
        _show_table(path, made, documented)
    else:
        for line in plan_lines(path, made[0]):
            click.echo(line)
    for fit in fits:
        click.echo(_fit_line(fit, length))
    show_emissions(emitted)
    warnings = [w for each in made for w in each.warnings] + list(config.warnings if config else ())
    show_warnings(dict.fromkeys(warnings), path)


@contextmanager
def _naming(path: Path | str) -> Iterator[None]:
    """Name the file in a refusal: planning knows no files."""
    try:
        yield
    except PlanError as error:
        error.path = error.path or path
        raise


def _show_table(path: Path | str, plans: tuple[Plan, ...], documented: Plan | None) -> None:
    from rich.console import Console
    from rich.table import Table

    first = plans[0]
    click.echo(head_line(path, first))
    click.echo(
        f"  target {first.target_length:,} tokens (factor {first.factor:g}), "
        f"γ {first.gamma.native:.3f} at training length, {first.gamma.unscaled:.3f} at the target "
        "without extension"
    )
    # What is cut off says nothing: of narrow terminals only words wrap.
    table = Table(box=None, pad_edge=False, padding=(0, 1))
    table.add_column("method")
    table.add_column("base", justify="right", no_wrap=True)
    tensors = any(made.tensor_edits for made in plans)
    table.add_column("factor, or of pairs" if tensors else "factor", justify="right")
    table.add_column("attention", justify="right", no_wrap=True)
    table.add_column("γ", justify="right", no_wrap=True)
    table.add_column("angles beyond training", justify="right")
    table.add_column("expectation", no_wrap=True)
    known = [made.measured for made in plans if made.measured is not None]
    if known:
        table.add_column("measured")
    rows = [(made.method.value, made) for made in plans]
    if documented is not None:
        name, length = documented.method.value, documented.target_length
        reach = f" to {length:,}" if length != first.target_length else ""
        rows.append((f"{name}{reach}, documented", documented))
    for name, made in rows:
        angles = made.out_of_distribution
        table.add_row(
            name,
            f"{made.freq_base.after:,.8g}",
            factors_of_pairs(made) or f"{made.freq_scale_factor:g}",
            f"{made.attention_factor:.4f}",
            f"{made.gamma.effective:.3f}",
            f"{angles.pairs} pairs, ×{angles.max_excess:.3g}",
            made.verdict.value,
            *(
                [measured_value(made.measured.measurement) if made.measured else ""]
                if known
                else []
            ),
        )
    console = Console()
    if not console.is_terminal:
        console = Console(width=130)
    console.print(table)
    for line in dict.fromkeys(map(_measured_line, known)):
        click.echo(line)
    if first.recommended is not None:
        click.echo("\n".join(recommendation_lines(first.recommended)))
    click.echo(f"KV cache at {first.target_length:,} tokens: {cache_sizes(first)}")


def _measured_line(found: Measured) -> str:
    """What the column of measured values is of."""
    return (
        f"measured: {measure_name(found.measurement)}, on {found.model} at factor "
        f"{found.factor:g} ({found.source})"
    )


def _fit_line(fit: CacheFit, target_length: int) -> str:
    state = "fits" if fit.fits else "does not fit"
    return (
        f"  {fit.cache_type} KV cache {binary_size(fit.bytes)} at {target_length:,} tokens: "
        f"{state} with the weights and {binary_size(fit.compute_bytes)} to compute; longest "
        f"context {fit.largest_context:,} tokens"
    )
