"""``ggufext check``: at which length and depth a model still finds a key."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ggufext.cli.check_options import ConditionName, Depths, LayerCount, Lengths
from ggufext.cli.check_progress import show_progress
from ggufext.cli.options import (
    ModelName,
    json_option,
    model_files,
    train_freq_base_option,
    train_length_option,
)
from ggufext.cli.output import show_error, show_json
from ggufext.errors import GgufextError, printable
from ggufext.locating.names import local_path
from ggufext.text import binary_size

if TYPE_CHECKING:
    from ggufext.audit.conditions.copies import CopyNeeded
    from ggufext.audit.findings.results import CheckResult
    from ggufext.audit.run.measure import PasskeyRun

_REQUIRED_BOUND_MISSED = 3
_INTERRUPTED = 130

#: Options that only one of the two engines understands.
_OF_A_FILE = (
    *("gpu_layers", "threads", "kv_type", "flash_attention", "rpc", "dask", "audit", "yes"),
    "train_freq_base",
)
_OF_A_SERVER = ("model",)

_FLASH_ATTENTION = {"auto": None, "on": True, "off": False}

#: Lengths tried without --lengths, and the shortest of them in tokens.
_USUAL_LENGTHS, _SHORTEST_USUAL = 4, 256


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
    "--gpu-layers", type=LayerCount(), default="auto", show_default=True, help="Layers on devices."
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
@click.option("--audit", is_flag=True, help="Compare the rotation of every layer with the plan.")
@click.option(
    "--yes",
    is_flag=True,
    help="Make a temporary copy of FILE for a condition that needs one, without asking.",
)
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="Of prompts and keys."
)
@click.option(
    "--resume",
    "records",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Keep every finished answer in this file, and go on with those that are in it.",
)
@click.option(
    "--report",
    "reports",
    metavar="FILE",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Write a report: .html, .png or .json; repeatable.",
)
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
    audit: bool,
    yes: bool,
    seed: int,
    records: Path | None,
    reports: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Ask a model for hidden keys at every length and depth, and report with what certainty.

    Nothing is written to FILE: planned conditions are tried without editing it.
    """
    from ggufext.audit.engines.connection import ServerSettings
    from ggufext.audit.findings.summary import result_of
    from ggufext.audit.passkey_file import LocalSettings, check_file
    from ggufext.audit.passkey_server import check_server
    from ggufext.audit.report import check_report_path, write_report
    from ggufext.audit.request import Mode
    from ggufext.audit.run.measure import PasskeyRequest, Template
    from ggufext.planning.footprint import CacheType

    if (path is None) == (server is None):
        raise click.UsageError("give one of FILE and --server")
    path = None if path is None else local_path(path)
    _refuse_options(_OF_A_FILE if path is None else _OF_A_SERVER, "FILE" if server else "--server")
    if dask and rpc:
        raise click.UsageError("give one of --dask and --rpc")
    for report in reports:
        check_report_path(report, inputs=_inputs(path, records, conditions))
    request = PasskeyRequest(
        lengths=lengths or _usual_lengths(path),
        depths=depths,
        trials=trials,
        mode=Mode(mode),
        seed=seed,
        conditions=tuple(dict.fromkeys(conditions)),
        train_length=train_length,
        train_freq_base=train_freq_base,
        template=Template(template),
        records=records,
        resume=records is not None,
    )
    if require is not None:
        _refuse_unreachable(require, trials * (depths if isinstance(depths, int) else len(depths)))
    engine: LocalSettings | ServerSettings
    with show_progress() as notify:
        if path is None:
            assert server is not None
            key = os.environ.get("GGUFEXT_API_KEY")
            engine = ServerSettings(url=server, model=model, api_key=key)
            run = check_server(engine, request, notify)
        else:
            engine = LocalSettings(
                threads=threads,
                gpu_layers=gpu_layers,
                cache_type=CacheType[kv_type.upper()],
                flash_attention=_FLASH_ATTENTION[flash_attention],
                rpc=rpc,
                dask=dask,
                audit=audit,
            )
            run = check_file(path, request, engine, notify, allow_copy=lambda x: yes or _agreed(x))
    result = result_of(run, request, engine, threshold=threshold)
    if as_json:
        show_json(result)
    else:
        _show(run, result)
    failed = False
    for report in reports:
        try:
            write_report(result, report)
        except GgufextError as error:
            show_error(error, as_json=False)
            failed = True
        else:
            click.echo(f"report written to {printable(str(report))}", err=True)
    _exit(run, result, require)
    if failed:
        sys.exit(1)


def _inputs(path: Path | None, records: Path | None, conditions: tuple[str, ...]) -> list[Path]:
    """Files that a report must not replace: model, kept answers, factors of conditions."""
    recipes = [
        Path(name.removeprefix("planned:").removesuffix("+keep-short")) for name in conditions
    ]
    return [each for each in (path, records, *recipes) if each is not None]


def _agreed(copy: CopyNeeded) -> bool:
    """Ask for a temporary copy; nobody at a terminal is a no."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    return click.confirm(
        f"{printable(copy.condition)} needs a temporary copy of {binary_size(copy.size)} in "
        f"{printable(str(copy.folder))}, which has {binary_size(copy.free)} free. Make it?",
        err=True,
    )


def _refuse_options(names: tuple[str, ...], belongs_to: str) -> None:
    """Refuse options that would be ignored."""
    context = click.get_current_context()
    for name in names:
        if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
            raise click.UsageError(f"--{name.replace('_', '-')} belongs to {belongs_to}")


def _usual_lengths(path: Path | None) -> tuple[int, ...]:
    """Up to four doublings that end at the file's context length."""
    from ggufext.header.header import read_header
    from ggufext.header.key_reader import KeyReader
    from ggufext.header.model import architecture_name

    if path is None:
        raise click.UsageError("--server needs --lengths: it does not say what to try")
    header = read_header(path)
    context = KeyReader(header, f"{architecture_name(header)}.").required("context_length")
    halved = (context >> times for times in range(_USUAL_LENGTHS))
    return tuple(sorted({length for length in halved if length >= _SHORTEST_USUAL} or {context}))


def _refuse_unreachable(bound: float, answers: int) -> None:
    """Say before hours of measuring that no outcome can pass."""
    from ggufext.audit.findings.statistics import trials_needed, wilson_interval

    best = wilson_interval(answers, answers)[0]
    if best < bound:
        raise click.UsageError(
            f"--require {bound:g} cannot be reached: {answers} answers a length, all of them "
            f"right, give a lower bound of {best:.3f}; it needs at least {trials_needed(bound)} "
            "(--depths times --trials)"
        )


def _show(run: PasskeyRun, result: CheckResult) -> None:
    from ggufext.audit.report.terminal import print_report

    print_report(result)
    for sentence in run.audited:
        click.echo(f"  audited: {printable(sentence)}")


def _exit(run: PasskeyRun, result: CheckResult, require: float | None) -> None:
    """End with the status of an interrupted or failed run, or of a missed bound."""
    from ggufext.audit.run.measure import Stop

    if run.stop is Stop.INTERRUPTED:
        click.echo("interrupted: the report holds what was done", err=True)
        sys.exit(_INTERRUPTED)
    if run.failure is not None:
        show_error(run.failure, as_json=False)
        sys.exit(1)
    if require is None:
        return
    names = [condition.name for condition in result.conditions]
    judged = result.conditions[names.index("file") if "file" in names else 0]
    longest = judged.lengths[-1]
    low = longest.interval[0] if longest.interval else None
    if low is None or low < require:
        found = "it was not measured" if low is None else f"the lower bound is {low:.3f}"
        click.echo(
            f"required bound missed: {printable(judged.name)} at {longest.length:,} tokens: "
            f"{found}, {require:g} is required",
            err=True,
        )
        sys.exit(_REQUIRED_BOUND_MISSED)
