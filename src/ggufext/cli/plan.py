"""``ggufext plan``: what could be written, and what to expect of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ggufext.api import emissions, plans
from ggufext.api.emissions import Engine
from ggufext.api.plans import RunTimeMethod, Verdict
from ggufext.cli.options import Size, found_model, json_option, path_argument
from ggufext.cli.output import show_json, show_warnings
from ggufext.cli.planning import asked, plan_options, show_emissions, show_run_time
from ggufext.cli.waiting import waiting
from ggufext.errors import printable
from ggufext.presenting import sentences
from ggufext.presenting.overview import naming, overview

if TYPE_CHECKING:
    from ggufext.presenting.overview import Overview


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
    if isinstance(named, RunTimeMethod):
        facts = config.facts if config else plans.facts_of(model, request)
        with naming(path):
            show_run_time(path, facts, named, request, as_json=as_json)
        return
    if vram is not None and config is not None:
        raise click.UsageError("--vram needs the weights of a GGUF file; this is a configuration")
    if engines is None:
        engines = (Engine.HF,) if config and named else ()
    found = overview(model, request, config=config, method=named, engines=engines, memory=vram)
    if as_json:
        show_json(found.document())
        return
    first = found.plans[0]
    click.echo(f"{click.style(printable(str(path)), bold=True)}: {sentences.head_line(first)}")
    if named is None and first.verdict is not Verdict.NO_EXTENSION_NEEDED:
        _show_table(found)
    else:
        for line in sentences.plan_lines(first):
            click.echo(line)
    for fit in found.fits:
        click.echo(f"  {sentences.fit_line(fit, request.target_length)}")
    show_emissions(found.emitted)
    show_warnings(found.warnings, path)


def _show_table(found: Overview) -> None:
    from rich.console import Console
    from rich.table import Table

    click.echo(f"  {sentences.target_line(found.plans[0])}")
    # What is cut off says nothing: of narrow terminals only words wrap.
    heads, rows = sentences.table(found.plans, found.documented)
    table = Table(box=None, pad_edge=False, padding=(0, 1))
    for head in heads:
        table.add_column(
            head,
            justify="left" if head in {"method", "expectation", "measured"} else "right",
            no_wrap=head in {"base", "attention", "γ", "expectation"},
        )
    for row in rows:
        table.add_row(*row)
    console = Console()
    if not console.is_terminal:
        console = Console(width=130)
    console.print(table)
    for line in sentences.table_lines(found.plans):
        click.echo(line)
