"""``ggufext plan``: what could be written, and what to expect of it."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ggufext.cli.asked import asked
from ggufext.cli.emission import config_of, emissions, show_emissions
from ggufext.cli.models import found_model
from ggufext.cli.options import (
    BYTES,
    METHOD,
    Engines,
    allow_lower_base_option,
    gamma_option,
    json_option,
    keep_short_option,
    path_argument,
    recipe_option,
    target_option,
    train_freq_base_option,
    train_length_option,
)
from ggufext.cli.output import show_json, show_warnings
from ggufext.cli.plan_text import (
    cache_sizes,
    factors_of_pairs,
    head_line,
    plan_as_json,
    plan_lines,
)
from ggufext.cli.run_time import show_run_time
from ggufext.errors import PlanError
from ggufext.header.header import read_header
from ggufext.header.shards import later_shards
from ggufext.header.weights import model_widths
from ggufext.json_text import jsonable
from ggufext.opened.model import facts_of
from ggufext.planning.emit import Engine
from ggufext.planning.footprint import cache_fits
from ggufext.planning.gamma import Verdict
from ggufext.planning.methods import RunTimeMethod
from ggufext.planning.plan import documented_plan, plan_all_methods
from ggufext.planning.plan import plan as plan_facts
from ggufext.text import binary_size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ggufext.header.layers import LayerFacts
    from ggufext.locating.remote import RemoteModel
    from ggufext.planning.footprint import CacheFit
    from ggufext.planning.result import Plan


@click.command(short_help="Show what could be written and what to expect.")
@path_argument
@target_option
@click.option("--method", type=METHOD, help="Plan this one; every method side by side without.")
@gamma_option
@recipe_option
@keep_short_option
@train_length_option
@train_freq_base_option
@allow_lower_base_option
@click.option(
    "--emit",
    "engines",
    type=Engines(),
    metavar="ENGINE,...",
    help="Print the plan for hf, vllm, llama.cpp, ollama, koboldcpp, lmstudio.",
)
@click.option(
    "--vram", type=BYTES, help="Memory that must hold weights, KV cache and compute buffers: 12g."
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
    target_length: int | None,
    method: str | None,
    gamma: float | None,
    recipe_path: Path | None,
    keep_short: bool,
    train_length: int | None,
    train_freq_base: float | None,
    allow_lower_base: bool,
    engines: tuple[Engine, ...] | None,
    vram: int | None,
    force: bool,
    as_json: bool,
) -> None:
    """Show what an extension would write and what to expect of it; nothing is written.

    FILE is a GGUF file, or a Hugging Face config.json or the folder that holds one.
    """
    named, request = asked(
        method=method,
        target_length=target_length,
        recipe_path=recipe_path,
        gamma=gamma,
        keep_short=keep_short,
        train_length=train_length,
        train_freq_base=train_freq_base,
        allow_lower_base=allow_lower_base,
        force=force,
    )
    if gamma is not None and named is None:
        raise click.UsageError("--gamma belongs to --method gamma")
    model = found_model(path)
    path = model if isinstance(model, Path) else model.name
    config = config_of(model, train_length=train_length) if isinstance(model, Path) else None
    if config is not None and train_freq_base is not None:
        raise click.UsageError("--train-freq-base is for a GGUF file: edit rope_theta instead")
    facts = config.facts if config else facts_of(model, request)
    with naming(path):
        if isinstance(named, RunTimeMethod):
            show_run_time(path, facts, named, request, as_json=as_json)
            return
        documented: Plan | None = None
        if named is None:
            documented = documented_plan(facts, force=force)
            plans = plan_all_methods(facts, request)
        else:
            plans = (plan_facts(facts, request),)
    if vram is not None and config is not None:
        raise click.UsageError("--vram needs the weights of a GGUF file; this is a configuration")
    if engines is None:
        engines = (Engine.HF,) if config and named else ()
    emitted = emissions(path, plans, facts, engines, config=config)
    fits = _fits(model, facts.layers, request.target_length, vram)
    if as_json:
        shown = [
            plan_as_json(path, p, emitted[p.method]) | ({"memory": jsonable(fits)} if fits else {})
            for p in plans
        ]
        said = plan_as_json(path, documented) if documented else None
        show_json(shown[0] if named else {"plans": shown, "documented": said})
        return
    if named is None and plans[0].verdict is not Verdict.NO_EXTENSION_NEEDED:
        _show_table(path, plans, documented)
    else:
        for line in plan_lines(path, plans[0]):
            click.echo(line)
    for fit in fits:
        click.echo(_fit_line(fit, request.target_length))
    show_emissions(emitted)
    warnings = [w for p in plans for w in p.warnings] + list(config.warnings if config else ())
    show_warnings(dict.fromkeys(warnings), path)


@contextmanager
def naming(path: Path | str) -> Iterator[None]:
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
    table = Table()
    table.add_column("method")
    tensors = any(made.tensor_edits for made in plans)
    factor = "factor, or factors of pairs" if tensors else "factor"
    for name in ("base", factor, "attention", "γ effective", "angles beyond training"):
        table.add_column(name, justify="right")
    table.add_column("expectation")
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
        )
    console = Console()
    if not console.is_terminal:
        console = Console(width=110)
    console.print(table)
    click.echo(f"KV cache at {first.target_length:,} tokens: {cache_sizes(first)}")


def _fits(
    model: Path | RemoteModel, layers: tuple[LayerFacts, ...], target_length: int, vram: int | None
) -> tuple[CacheFit, ...]:
    if vram is None:
        return ()
    first = read_header(model) if isinstance(model, Path) else model.header
    shards = (first, *later_shards(first))
    weights = sum(header.data_end - header.data_offset for header in shards)
    return cache_fits(
        layers, target_length, widths=model_widths(first), weights=weights, memory=vram
    )


def _fit_line(fit: CacheFit, target_length: int) -> str:
    state = "fits" if fit.fits else "does not fit"
    return (
        f"  {fit.cache_type} KV cache {binary_size(fit.bytes)} at {target_length:,} tokens: "
        f"{state} with the weights and {binary_size(fit.compute_bytes)} to compute; longest "
        f"context {fit.largest_context:,} tokens"
    )
