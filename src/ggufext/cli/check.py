"""``ggufext check``: at which length and depth a model still finds a key."""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ggufext.api import names
from ggufext.cli import runs
from ggufext.cli.options import (
    TOKENS,
    ModelName,
    json_option,
    model_files,
    train_freq_base_option,
    train_length_option,
)
from ggufext.text import duration

if TYPE_CHECKING:
    from ggufext.api.audits import Progress, RunNotes
    from ggufext.cli.waiting import Wait


#: Seconds from which on something shorter is offered.
_LONG = 600.0


def beginning(notes: RunNotes) -> str:
    """What is asked, how long it takes, and what would take less."""
    asked = f"asking {notes.questions - notes.finished:,} questions"
    if notes.finished:
        asked += f" ({notes.finished:,} are answered)"
    said = f"{asked}, {notes.tokens:,} tokens"
    found = notes.estimate
    if found is None:
        return said
    said += f": about {duration(found.seconds)}, measured on the first tokens of this model"
    if found.sweep_seconds is not None:
        said += f"; --mode sweep would take about {duration(found.sweep_seconds)}"
    if found.seconds > _LONG and found.shorter_seconds is not None:
        said += f", without the longest of --lengths about {duration(found.shorter_seconds)}"
    return said


def detail(progress: Progress, notes: RunNotes) -> str:
    """Where a run is."""
    answered = f"{progress.questions:,} of {notes.questions:,} questions"
    return f"{progress.trial.condition}, {answered}"


def listener(wait: Wait) -> runs.Listener[RunNotes]:
    """What hears a run."""

    def seconds(notes: RunNotes) -> float | None:
        return notes.estimate.seconds if notes.estimate else None

    return runs.Listener(wait, "asking", beginning, seconds, detail)


_REQUIRED_BOUND_MISSED = 3

#: Options that only one of the two engines understands.
_OF_A_FILE = (
    *("gpu_layers", "threads", "kv_type", "flash_attention", "rpc", "dask", "audit", "yes"),
    *("llama_server", "llama_cpp", "train_freq_base"),
)
_OF_A_SERVER = ("model",)


class Lengths(click.ParamType["tuple[int, ...]"]):
    """Lengths in tokens, separated by commas: 4k,8k,16k."""

    name = "lengths"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        """Rising, each once."""
        if isinstance(value, tuple):
            return value
        parts = str(value).split(",")
        return tuple(sorted({TOKENS.convert(part.strip(), param, ctx) for part in parts}))


class _Program(click.ParamType[Path]):
    """A program: a path, or a name on the search path, as a shell takes it."""

    name = "program"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> Path:
        """Absolute where it is no mere name: ``Path("./x")`` would be one."""
        path = Path(str(value))
        return path.absolute() if str(value) != path.name else path


@click.command()
@click.argument(
    "path",
    metavar="[FILE]",
    required=False,
    type=ModelName(),
    callback=model_files,
)
@click.option(
    "--server",
    "servers",
    metavar="URL",
    multiple=True,
    help="Ask the model behind an OpenAI-compatible address instead; the environment variable "
    "GGUFEXT_API_KEY holds its key where it wants one. Repeatable: servers with the same model "
    "share the texts.",
)
@click.option("--model", help="Name of the model on the server; its first one without.")
@click.option(
    "--lengths",
    type=Lengths(),
    metavar="LENGTHS",
    help="Lengths of prompt and answer in tokens: 4k,8k,16k. Without: up to four doublings that "
    "end at the file's context length.",
)
@click.option(
    "--depths",
    type=runs.Depths(),
    metavar="DEPTHS",
    default=10,
    show_default=True,
    help="Equal bins of depth; or the depths themselves, in percent or as shares: 0,25,50,75,100 "
    "or 0.1,0.5.",
)
@click.option(
    "--trials",
    type=click.IntRange(1),
    default=5,
    show_default=True,
    help="Answers a cell, up to 1,000, each from a text of its own.",
)
@click.option(
    "--mode",
    type=click.Choice(["standard", "sweep"], case_sensitive=False),
    default="standard",
    show_default=True,
    help="One key a text, or many labelled ones: cheaper, and a harder task.",
)
@click.option(
    "--condition",
    "conditions",
    type=runs.ConditionName(),
    metavar="CONDITION",
    multiple=True,
    default=("file",),
    show_default=True,
    help="file, native, planned:METHOD, planned:gamma=0.5 for a γ at the longest length, "
    "planned:documented for the publisher's, planned:FACTORS.json (each with +keep-short) or "
    "self-extend:g=4,w=512; repeatable, on the same prompts.",
)
@train_length_option
@train_freq_base_option
@click.option(
    "--threshold",
    type=click.FloatRange(0, 1, min_open=True),
    default=0.8,
    show_default=True,
    help="Accuracy that the effective length asks for.",
)
@click.option(
    "--require",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="End with status 3 unless the lower bound at the longest length reaches this.",
)
@click.option(
    "--template",
    type=click.Choice(["auto", "none", "chat"], case_sensitive=False),
    default="auto",
    show_default=True,
    help="Ask in plain text (none) or as a user of a chat (chat). auto: through the file's own "
    "template where it has one; a server in plain text.",
)
@runs.engine_options
@click.option(
    "--llama-server",
    metavar="PROGRAM",
    type=_Program(),
    help="Ask llama.cpp's own server, started for every condition and ended: a build that is "
    "already here, for a GPU for instance. Options that are not given are left to it.",
)
@runs.run_options
@runs.report_option
@json_option
def check(
    path: Path | str | None,
    servers: tuple[str, ...],
    model: str | None,
    require: float | None,
    mode: str,
    template: str,
    yes: bool,
    reports: tuple[Path, ...],
    as_json: bool,
    **asked: Any,
) -> None:
    """Ask a model for hidden keys at every length and depth, and report with what certainty.

    Nothing is written to FILE: planned conditions are tried without editing it.
    """
    from ggufext.api import audits

    if (path is None) != bool(servers):
        raise click.UsageError("give one of FILE and --server")
    _refuse_options(_OF_A_FILE if servers else _OF_A_SERVER, "FILE" if servers else "--server")
    if servers and asked["lengths"] is None:
        raise click.UsageError("--server needs --lengths: it does not say what to try")
    path = None if path is None else names.local_path(path)
    engine = runs.local_settings(asked)
    request = audits.CheckRequest(
        mode=audits.Mode(mode),
        template=audits.Template(template),
        engine=None if servers else engine,
        **asked,
    )
    if require is not None and (why := audits.bound_out_of_reach(request, require)):
        raise click.UsageError(f"--require {why}")
    source = path or audits.ServerSettings(
        url="".join(servers[:1]),
        others=servers[1:],
        model=model,
        api_key=os.environ.get("GGUFEXT_API_KEY"),
    )
    inputs = (*([path] if path else []), *request.files)
    with runs.running("preparing", inputs=inputs, reports=reports) as wait:
        result = audits.check(
            source,
            request,
            allow_copy=yes or partial(runs.agreed, wait),
            notify=listener(wait),
        )
    written = runs.told(result, reports, as_json=as_json)
    if require is not None and (where := audits.bound_missed(result, require)):
        click.echo(f"required bound missed: {where}", err=True)
        sys.exit(_REQUIRED_BOUND_MISSED)
    if not written:
        sys.exit(1)


def _refuse_options(names: tuple[str, ...], belongs_to: str) -> None:
    """Refuse options that would be ignored."""
    context = click.get_current_context()
    for name in names:
        if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
            raise click.UsageError(f"--{name.replace('_', '-')} belongs to {belongs_to}")
