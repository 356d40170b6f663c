"""``ggufext tune``: a search for better scaling than the closed forms."""

from __future__ import annotations

import signal
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

if TYPE_CHECKING:
    from pathlib import Path

    from ggufext.api.tunings import TuneProgress


@click.command()
@path_argument
@click.option("--target", type=TOKENS, required=True, help="Length to extend to: 32k.")
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
@json_option
def tune(
    path: Path | str,
    target: int,
    minutes: float,
    metadata_only: bool,
    texts: tuple[Path, ...],
    search_texts: int,
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
    as_json: bool,
) -> None:
    """Search for a scaling of FILE that is better than every method, in the minutes there are.

    Kept only if it beats the best method on held-out texts beyond the interval. Nothing is written
    to FILE. The JSON is a recipe: `rewrite --recipe` writes the result.
    """
    from ggufext.api import audits, tunings

    request = tunings.TuneRequest(
        target_length=target,
        minutes=minutes,
        metadata_only=metadata_only,
        texts=texts,
        search_texts=search_texts,
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
    # Copies and processes are given back, as at Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with waiting("tuning") as wait:

        def notify(event: TuneProgress) -> None:
            wait.tell(Told("tuning", detail=event.detail, expected=60 * minutes))

        result = tunings.tune(
            names.local_path(path),
            request,
            allow_copy=yes or partial(runs.agreed, wait),
            notify=notify,
        )
    if as_json:
        show_json(result)
    else:
        audits.print_report(result)
        runs.show_audited(result)
    runs.end(result)
