"""``ggufext check``: at which length and depth a model still finds a key."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ggufext.api import names
from ggufext.cli.options import (
    TOKENS,
    ConditionName,
    ModelName,
    json_option,
    model_files,
    report_option,
    train_freq_base_option,
    train_length_option,
    yes_option,
)
from ggufext.cli.output import agreed_to_copy, end_if_stopped, show_json, write_reports
from ggufext.errors import printable
from ggufext.text import duration

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ggufext.api.audits import CheckResult, Progress, RunNotes


#: Seconds between two lines where nobody watches a bar.
_BETWEEN_LINES = 10.0

#: Seconds from which on something shorter is offered.
_LONG = 600.0

#: Seconds over which a bar's speed is averaged: a question of a long text may take minutes.
_AVERAGED = 1800.0


@contextmanager
def _show_progress() -> Iterator[Callable[[Progress | RunNotes], None]]:
    """Tell on standard error: a bar on a terminal, lines elsewhere."""
    if not sys.stderr.isatty():
        yield _Lines()
        return
    from rich import progress
    from rich.console import Console

    from ggufext.api.audits import RunNotes

    bar = progress.Progress(
        "{task.description}",
        progress.BarColumn(),
        progress.TextColumn("{task.fields[done]}"),
        progress.TimeRemainingColumn(),
        console=Console(stderr=True, markup=False, highlight=False),
        speed_estimate_period=_AVERAGED,
        transient=True,
    )
    task = bar.add_task("loading", total=None, done="")
    total = 0

    def report(event: Progress | RunNotes) -> None:
        nonlocal total
        if isinstance(event, RunNotes):
            total = event.tokens
            bar.update(task, description="asking", total=total)
            if event.estimate is not None:
                bar.console.print(beginning(event))
        else:
            name = printable(event.trial.condition, 60)
            done = f"{event.tokens:,} of {total:,} tokens"
            bar.update(task, completed=event.tokens, description=name, done=done)

    with bar:
        yield report


class _Lines:
    """A line at the beginning, and now and then one on how far the run is."""

    def __init__(self) -> None:
        self._questions = self._tokens = 0
        self._started = self._said = 0.0

    def __call__(self, event: Progress | RunNotes) -> None:
        from ggufext.api.audits import RunNotes

        now = time.monotonic()
        if isinstance(event, RunNotes):
            self._questions, self._tokens = event.questions, event.tokens
            self._started = self._said = now
            click.echo(beginning(event), err=True)
        elif now - self._said >= _BETWEEN_LINES:
            self._said = now
            left = (now - self._started) / event.tokens * (self._tokens - event.tokens)
            click.echo(
                f"{printable(event.trial.condition, 60)}: {event.questions:,} of "
                f"{self._questions:,} questions, {event.tokens:,} of "
                f"{self._tokens:,} tokens, about {duration(left)} left",
                err=True,
            )


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


_REQUIRED_BOUND_MISSED = 3

#: Options that only one of the two engines understands.
_OF_A_FILE = (
    *("gpu_layers", "threads", "kv_type", "flash_attention", "rpc", "dask", "audit", "yes"),
    *("llama_server", "train_freq_base"),
)
_OF_A_SERVER = ("model",)

_FLASH_ATTENTION = {"auto": None, "on": True, "off": False}


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


class Depths(click.ParamType["int | tuple[float, ...]"]):
    """Depths of the key: a number of bins, or the depths themselves as shares or in percent."""

    name = "depths"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | tuple[float, ...]:
        """Bins 1 … 100, or shares of [0, 1]."""
        if isinstance(value, int):
            return value
        text = str(value)
        bins = int(text) if re.fullmatch(r"\d{1,3}", text) else None
        if bins is not None and 1 <= bins <= 100:
            return bins
        parts = [part.strip() for part in text.split(",")]
        if bins is not None or not all(
            re.fullmatch(r"\d{1,3}(\.\d{1,9})?%?", part) for part in parts
        ):
            self.fail(
                f"{text!r} is neither a number of bins up to 100 nor a list of depths such as "
                "0,25,50,75,100 or 0.1,0.5",
                param,
                ctx,
            )
        numbers = [float(part.removesuffix("%")) for part in parts]
        percent = any(part.endswith("%") for part in parts) or max(numbers) > 1
        if percent and any(0 < number < 1 for number in numbers):
            self.fail(f"{text!r} mixes shares of 1 and percent", param, ctx)
        if percent:
            numbers = [number / 100 for number in numbers]
        if max(numbers) > 1 or len(numbers) > 100:
            self.fail(f"{text!r}: up to 100 depths, each from 0 to 100 %", param, ctx)
        return tuple(sorted(set(numbers)))


class _LayerCount(click.ParamType["int | None"]):
    """Layers given to a device: a number, or auto for as many as fit."""

    name = "layers"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | None:
        """None for auto."""
        text = str(value).lower()
        if text == "auto":
            return None
        if not text.isdecimal() or len(text) > 6:
            self.fail(f"{text!r} is neither a number of layers nor auto", param, ctx)
        return int(text)


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
    metavar="URL",
    help="Ask the model behind an OpenAI-compatible address instead; the environment variable "
    "GGUFEXT_API_KEY holds its key where it wants one.",
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
    type=Depths(),
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
    type=ConditionName(),
    metavar="CONDITION",
    multiple=True,
    default=("file",),
    show_default=True,
    help="file, native, planned:METHOD, planned:FACTORS.json (either with +keep-short) or "
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
@click.option(
    "--gpu-layers", type=_LayerCount(), default="auto", show_default=True, help="Layers on devices."
)
@click.option(
    "--threads",
    type=click.IntRange(1, 1024),
    help="Threads; without: all cores, one for a small model.",
)
@click.option(
    "--kv-type",
    type=click.Choice(["f16", "q8_0", "q4_0"], case_sensitive=False),
    default="f16",
    show_default=True,
    help="Type of the KV cache.",
)
@click.option(
    "--flash-attention",
    type=click.Choice(["auto", "on", "off"], case_sensitive=False),
    default="auto",
    show_default=True,
    help="Attention that never writes its scores out. auto: on devices that can; on processors "
    "what is faster for this model, or to save memory.",
)
@click.option(
    "--rpc",
    multiple=True,
    metavar="HOST:PORT",
    help="llama.cpp RPC worker that holds a part of the model; repeatable. The link is not "
    "authenticated.",
)
@click.option(
    "--dask",
    metavar="ADDRESS",
    help="Ask on the workers of a dask scheduler, which see FILE at the same path: "
    "tcp://host:8786.",
)
@click.option(
    "--llama-server",
    metavar="PROGRAM",
    type=click.Path(path_type=Path),
    help="Ask llama.cpp's own server, started for every condition and ended: a build that is "
    "already here, for a GPU for instance. Options that are not given are left to it.",
)
@click.option("--audit", is_flag=True, help="Compare the rotation of every layer with the plan.")
@yes_option
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="Of prompts and keys."
)
@click.option(
    "--resume",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Keep every finished answer in this file, and go on with those that are in it.",
)
@report_option
@json_option
def check(
    path: Path | str | None,
    server: str | None,
    model: str | None,
    lengths: tuple[int, ...] | None,
    depths: int | tuple[float, ...],
    trials: int,
    mode: str,
    conditions: tuple[str, ...],
    train_length: int | None,
    train_freq_base: float | None,
    threshold: float,
    require: float | None,
    template: str,
    gpu_layers: int | None,
    threads: int | None,
    kv_type: str,
    flash_attention: str,
    rpc: tuple[str, ...],
    dask: str | None,
    llama_server: Path | None,
    audit: bool,
    yes: bool,
    seed: int,
    resume: Path | None,
    reports: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Ask a model for hidden keys at every length and depth, and report with what certainty.

    Nothing is written to FILE: planned conditions are tried without editing it.
    """
    from ggufext.api import audits
    from ggufext.api.plans import CacheType

    if (path is None) == (server is None):
        raise click.UsageError("give one of FILE and --server")
    _refuse_options(_OF_A_FILE if server else _OF_A_SERVER, "FILE" if server else "--server")
    if dask and rpc:
        raise click.UsageError("give one of --dask and --rpc")
    if server and lengths is None:
        raise click.UsageError("--server needs --lengths: it does not say what to try")
    path = None if path is None else names.local_path(path)
    request = audits.CheckRequest(
        lengths=lengths,
        depths=depths,
        trials=trials,
        mode=audits.Mode(mode),
        seed=seed,
        conditions=conditions,
        train_length=train_length,
        train_freq_base=train_freq_base,
        template=audits.Template(template),
        threshold=threshold,
        resume=resume,
        engine=None
        if server
        else audits.LocalSettings(
            threads=threads,
            gpu_layers=gpu_layers,
            cache_type=CacheType[kv_type.upper()],
            flash_attention=_FLASH_ATTENTION[flash_attention],
            rpc=rpc,
            dask=dask,
            audit=audit,
            llama_server=llama_server,
        ),
    )
    for report in reports:
        audits.check_report_path(report, inputs=(*([path] if path else []), *request.files))
    if require is not None and (why := audits.bound_out_of_reach(request, require)):
        raise click.UsageError(f"--require {why}")
    asked = path or audits.ServerSettings(
        url=server or "", model=model, api_key=os.environ.get("GGUFEXT_API_KEY")
    )
    # Copies and processes are given back, as at Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with _show_progress() as notify:
        result = audits.check(
            asked, request, allow_copy=lambda x: yes or agreed_to_copy(x), notify=notify
        )
    if as_json:
        show_json(result)
    else:
        _show(result)
    written = write_reports(result, reports)
    end_if_stopped(result)
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


def _show(result: CheckResult) -> None:
    from ggufext.api.audits import print_report

    print_report(result)
    for sentence in result.run.audited:
        click.echo(f"  audited: {printable(sentence)}")
