"""``ggufext measure``: how attention of a model falls with distance."""

from __future__ import annotations

import signal
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ggufext.api import names
from ggufext.cli import runs
from ggufext.cli.options import (
    TOKENS,
    json_option,
    llama_cpp_option,
    path_argument,
    train_freq_base_option,
    train_length_option,
)
from ggufext.cli.output import show_json
from ggufext.cli.waiting import Told, waiting

if TYPE_CHECKING:
    from ggufext.api.measurements import MeasureProgress


@click.command()
@path_argument
@click.option(
    "--length",
    type=TOKENS,
    help="Tokens of text that are read. Without: the file's context length, up to 4k.",
)
@click.option("--distance", type=TOKENS, help="Largest distance. Without: half of the length.")
@click.option(
    "--rows",
    type=click.IntRange(1),
    default=256,
    show_default=True,
    help="Queries whose attention is read, 16 to 4,096; each sees every distance.",
)
@click.option(
    "--condition",
    "conditions",
    type=runs.ConditionName(),
    metavar="CONDITION",
    multiple=True,
    default=("file",),
    show_default=True,
    help="file, native, planned:METHOD or planned:FACTORS.json (either with +keep-short); "
    "repeatable, on the same text.",
)
@click.option(
    "--target",
    "target_length",
    type=TOKENS,
    help="Length that planned conditions extend to. Without: the length that is read.",
)
@click.option(
    "--text",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="UTF-8 text whose beginning is read. Without: the filler sentences of check.",
)
@train_length_option
@train_freq_base_option
@click.option(
    "--threads",
    type=click.IntRange(1, 1024),
    help="Threads; without: all cores, one for a small model.",
)
@llama_cpp_option
@runs.yes_option
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Of filler and intervals.",
)
@runs.report_option
@json_option
def measure(
    path: Path | str,
    length: int | None,
    distance: int | None,
    rows: int,
    conditions: tuple[str, ...],
    target_length: int | None,
    text: Path | None,
    train_length: int | None,
    train_freq_base: float | None,
    threads: int | None,
    llama_cpp: Path | None,
    yes: bool,
    seed: int,
    reports: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Measure how attention falls with distance, by layer and head, on a text.

    A description of the model, which nothing passes or fails. Nothing is written to FILE: planned
    conditions are tried without editing it.
    """
    from ggufext.api import audits, measurements

    file = names.local_path(path)
    request = measurements.MeasureRequest(
        length=length,
        distance=distance,
        rows=rows,
        conditions=conditions,
        text=text,
        target_length=target_length,
        train_length=train_length,
        train_freq_base=train_freq_base,
        threads=threads,
        llama_cpp=llama_cpp,
        seed=seed,
    )
    for report in reports:
        audits.check_report_path(report, inputs=(file, *request.files))
    # Copies and processes are given back, as at Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with waiting("loading") as wait:

        def notify(event: MeasureProgress) -> None:
            wait.tell(Told("measuring", event.tokens, event.total, "tokens", event.condition))

        result = measurements.measure(
            file, request, allow_copy=yes or partial(runs.agreed, wait), notify=notify
        )
    if as_json:
        show_json(result)
    else:
        audits.print_report(result)
    written = runs.write_reports(result, reports)
    runs.end(result)
    if not written:
        sys.exit(1)
