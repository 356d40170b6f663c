"""``ggufext measure``: how attention of a model falls with distance."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
from ggufext.cli.waiting import Told

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
    path: Path | str, yes: bool, reports: tuple[Path, ...], as_json: bool, **asked: Any
) -> None:
    """Measure how attention falls with distance, by layer and head, on a text.

    A description of the model, which nothing passes or fails. Nothing is written to FILE: planned
    conditions are tried without editing it.
    """
    from ggufext.api import measurements

    file = names.local_path(path)
    request = measurements.MeasureRequest(**asked)
    with runs.running("loading", inputs=(file, *request.files), reports=reports) as wait:

        def notify(event: MeasureProgress) -> None:
            wait.tell(Told("measuring", event.tokens, event.total, "tokens", event.condition))

        result = measurements.measure(
            file, request, allow_copy=yes or partial(runs.agreed, wait), notify=notify
        )
    if not runs.told(result, reports, as_json=as_json):
        sys.exit(1)
