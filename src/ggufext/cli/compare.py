"""``ggufext compare``: which scaling works on a model, measured."""

from __future__ import annotations

import signal
import sys
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import click

from ggufext.api import names
from ggufext.cli import runs
from ggufext.cli.options import (
    TOKENS,
    json_option,
    path_argument,
    train_freq_base_option,
    train_length_option,
)
from ggufext.cli.output import show_json
from ggufext.cli.waiting import Told, waiting
from ggufext.text import duration

if TYPE_CHECKING:
    from pathlib import Path

    from ggufext.api.audits import Computing, Preparing
    from ggufext.api.comparisons import CompareNotes, CompareProgress
    from ggufext.cli.waiting import Wait


@click.command()
@path_argument
@click.option(
    "--target",
    type=TOKENS,
    required=True,
    help="Longest length measured, and what planned conditions extend to: 32k.",
)
@click.option(
    "--condition",
    "conditions",
    type=runs.ConditionName(),
    metavar="CONDITION",
    multiple=True,
    help="planned:METHOD, planned:gamma=0.5 for a γ at the target, planned:documented for the "
    "publisher's, planned:FACTORS.json (each with +keep-short) or file; repeatable. Without: "
    "linear, ntk, gamma and yarn where the model takes them, llama3 too with --yes, and documented "
    "where it reaches the target. native is always measured.",
)
@runs.texts_option
@click.option(
    "--trials",
    type=click.IntRange(1),
    default=3,
    show_default=True,
    help="Texts, each as long as the target; a long file gives several.",
)
@click.option(
    "--depths",
    type=runs.Depths(),
    metavar="DEPTHS",
    default=4,
    show_default=True,
    help="Keys asked for at every length of a text: equal bins of depth, or the depths themselves.",
)
@train_length_option
@train_freq_base_option
@runs.native_threshold_option
@runs.engine_options
@runs.run_options
@runs.report_option
@json_option
def compare(
    path: Path | str,
    target: int,
    conditions: tuple[str, ...],
    texts: tuple[Path, ...],
    trials: int,
    depths: int | tuple[float, ...],
    train_length: int | None,
    train_freq_base: float | None,
    threshold: float,
    gpu_layers: int | None,
    threads: int | None,
    kv_type: str,
    flash_attention: str,
    rpc: tuple[str, ...],
    dask: str | None,
    llama_cpp: Path | None,
    audit: bool,
    yes: bool,
    seed: int,
    resume: Path | None,
    reports: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Measure which scaling works on FILE: loss by position, keys found, and the short cost.

    Nothing is written to FILE. The JSON is a recipe: `rewrite --recipe` writes what it recommends.
    """
    from ggufext.api import audits, comparisons

    request = comparisons.CompareRequest(
        target_length=target,
        conditions=conditions,
        texts=texts,
        trials=trials,
        depths=depths,
        seed=seed,
        train_length=train_length,
        train_freq_base=train_freq_base,
        threshold=threshold,
        resume=resume,
        engine=runs.local_settings(
            threads=threads,
            gpu_layers=gpu_layers,
            kv_type=kv_type,
            flash_attention=flash_attention,
            rpc=rpc,
            dask=dask,
            llama_cpp=llama_cpp,
            audit=audit,
        ),
    )
    file = names.local_path(path)
    for report in reports:
        audits.check_report_path(report, inputs=(file, *request.files))
    # Copies and processes are given back, as at Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with waiting("preparing") as wait:
        result = comparisons.compare(
            file,
            request,
            allow_copy=yes or partial(runs.agreed, wait),
            notify=_Listener(wait),
        )
    if as_json:
        show_json(result)
    else:
        audits.print_report(result)
        runs.show_audited(result)
    written = runs.write_reports(result, reports)
    runs.end(result)
    if not written:
        sys.exit(1)


class _Listener:
    """Hears what a run tells, and passes it on."""

    def __init__(self, wait: Wait) -> None:
        self._wait = wait
        self._cells = 0
        self._measuring = Told("measuring")

    def __call__(self, event: Preparing | Computing | CompareNotes | CompareProgress) -> None:
        from ggufext.api.audits import Computing, Preparing
        from ggufext.api.comparisons import CompareNotes

        if isinstance(event, Preparing):
            self._wait.tell(Told(event.what, event.done, event.total, "bytes"))
            return
        if isinstance(event, Computing):
            done = self._measuring.done + event.tokens
            self._wait.tell(replace(self._measuring, done=done))
            return
        if isinstance(event, CompareNotes):
            with self._wait.silent():
                click.echo(beginning(event), err=True)
            self._cells = event.cells
            self._measuring = Told("measuring", 0, event.tokens, "tokens", expected=event.seconds)
        else:
            detail = f"{event.condition}, {event.finished:,} of {self._cells:,} cells"
            self._measuring = replace(self._measuring, done=event.tokens, detail=detail)
        self._wait.tell(self._measuring)


def beginning(notes: CompareNotes) -> str:
    """What is measured, and how long it takes."""
    cells = f"measuring {notes.cells - notes.finished:,} cells of a condition and a text"
    if notes.finished:
        cells += f" ({notes.finished:,} are done)"
    said = f"{cells}, {notes.tokens:,} tokens"
    if notes.seconds is None or notes.finished == notes.cells:
        return said
    return f"{said}: about {duration(notes.seconds)}, measured on the first tokens of this model"
