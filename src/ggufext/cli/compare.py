"""``ggufext compare``: which scaling works on a model, measured."""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING, Any

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
from ggufext.text import duration

if TYPE_CHECKING:
    from pathlib import Path

    from ggufext.api.comparisons import CompareNotes, CompareProgress


@click.command()
@path_argument
@click.option(
    "--target",
    "target_length",
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
    path: Path | str, yes: bool, reports: tuple[Path, ...], as_json: bool, **asked: Any
) -> None:
    """Measure which scaling works on FILE: loss by position, keys found, and the short cost.

    Nothing is written to FILE. The JSON is a recipe: `rewrite --recipe` writes what it recommends.
    """
    from ggufext.api import comparisons

    engine = runs.local_settings(asked)
    request = comparisons.CompareRequest(engine=engine, **asked)
    file = names.local_path(path)
    with runs.running("preparing", inputs=(file, *request.files), reports=reports) as wait:
        result = comparisons.compare(
            file,
            request,
            allow_copy=yes or partial(runs.agreed, wait),
            notify=runs.Listener(wait, "measuring", beginning, lambda notes: notes.seconds, detail),
        )
    if not runs.told(result, reports, as_json=as_json):
        sys.exit(1)


def detail(progress: CompareProgress, notes: CompareNotes) -> str:
    """Where a run is."""
    return f"{progress.condition}, {progress.finished:,} of {notes.cells:,} cells"


def beginning(notes: CompareNotes) -> str:
    """What is measured, and how long it takes."""
    cells = f"measuring {notes.cells - notes.finished:,} cells of a condition and a text"
    if notes.finished:
        cells += f" ({notes.finished:,} are done)"
    said = f"{cells}, {notes.tokens:,} tokens"
    if notes.seconds is None or notes.finished == notes.cells:
        return said
    return f"{said}: about {duration(notes.seconds)}, measured on the first tokens of this model"
