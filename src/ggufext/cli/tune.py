"""``ggufext tune``: a search for better scaling than the closed forms."""

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
from ggufext.cli.waiting import Told

if TYPE_CHECKING:
    from pathlib import Path

    from ggufext.api.tunings import TuneProgress


@click.command()
@path_argument
@click.option(
    "--target", "target_length", type=TOKENS, required=True, help="Length to extend to: 32k."
)
@click.option(
    "--minutes",
    type=click.FloatRange(0.1, 43_200),
    required=True,
    help="How long it may take, the decision on held-out texts included.",
)
@click.option(
    "--metadata-only",
    is_flag=True,
    help="Leave out scalings that need a tensor of factors in the file.",
)
@runs.texts_option
@click.option(
    "--search-texts",
    type=click.IntRange(1, 100),
    default=4,
    show_default=True,
    help="Texts that are searched on, each as long as the target.",
)
@click.option(
    "--trials",
    type=click.IntRange(1),
    default=3,
    show_default=True,
    help="Held-out texts that decide; a long file gives several of both.",
)
@click.option(
    "--depths",
    type=runs.Depths(),
    metavar="DEPTHS",
    default=4,
    show_default=True,
    help="Keys asked for at every length of a held-out text: equal bins of depth, or the depths "
    "themselves.",
)
@train_length_option
@train_freq_base_option
@runs.native_threshold_option
@runs.engine_options
@runs.run_options
@runs.report_option
@json_option
def tune(
    path: Path | str, yes: bool, reports: tuple[Path, ...], as_json: bool, **asked: Any
) -> None:
    """Search for a scaling of FILE that is better than every method, in the minutes there are.

    Kept only if it beats the best method on held-out texts beyond the interval. Nothing is written
    to FILE. The JSON is a recipe: `rewrite --recipe` writes the result.
    """
    from ggufext.api import tunings

    engine = runs.local_settings(asked)
    request = tunings.TuneRequest(engine=engine, **asked)
    file = names.local_path(path)
    inputs = (file, *request.compared(()).files)
    with runs.running("tuning", inputs=inputs, reports=reports) as wait:

        def notify(event: TuneProgress) -> None:
            wait.tell(Told("tuning", detail=event.detail, expected=60 * request.minutes))

        result = tunings.tune(
            file,
            request,
            allow_copy=yes or partial(runs.agreed, wait),
            notify=notify,
        )
    if not runs.told(result, reports, as_json=as_json):
        sys.exit(1)
