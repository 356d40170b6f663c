"""``ggufext check``: at which length and depth a model still finds a key."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ggufext.cli.options import TOKENS, json_option, train_length_option
from ggufext.cli.output import show_error, show_json, show_warnings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ggufext.audit.passkey import PasskeyRun
    from ggufext.audit.results import CheckResult

_REQUIRED_BOUND_MISSED = 3
_INTERRUPTED = 130


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


class LayerCount(click.ParamType["int | None"]):
    """Layers given to a device: a number, or auto for as many as fit."""

    name = "layers"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | None:
        """None for auto."""
        if value == "auto" or isinstance(value, int):
            return None if value == "auto" else value
        text = str(value)
        if not text.isdecimal() or len(text) > 6:
            self.fail(f"{text!r} is neither a number of layers nor auto", param, ctx)
        return int(text)


@click.command()
@click.argument("path", metavar="[FILE]", required=False, type=click.Path(path_type=Path))
@click.option("--server", metavar="URL", help="Ask the model behind this address instead.")
@click.option(
    "--lengths",
    type=Lengths(),
    metavar="LENGTHS",
    help="Lengths of prompt and answer in tokens: 4k,8k,16k. Without: up to four doublings that "
    "end at the file's context length.",
)
@click.option(
    "--depths",
    type=click.IntRange(1, 100),
    default=10,
    show_default=True,
    help="Equal bins of depth.",
)
@click.option(
    "--trials",
    type=click.IntRange(1, 10_000),
    default=5,
    show_default=True,
    help="Answers a cell, each from a text of its own.",
)
@click.option(
    "--mode",
    type=click.Choice(["standard", "sweep"]),
    default="standard",
    show_default=True,
    help="One key a text, or many labelled ones: cheaper, and a harder task.",
)
@click.option(
    "--condition",
    "conditions",
    multiple=True,
    default=("file",),
    show_default=True,
    help="file, native, planned:METHOD or self-extend:g=4,w=512; repeatable, on the same prompts.",
)
@train_length_option
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
    type=click.Choice(["auto", "none"]),
    default="auto",
    show_default=True,
    help="Ask a chat model through its own template, or in plain text.",
)
@click.option(
    "--gpu-layers", type=LayerCount(), default="auto", show_default=True, help="Layers on devices."
)
@click.option("--threads", type=click.IntRange(1, 1024), help="Threads; all cores without.")
@click.option(
    "--kv-type",
    type=click.Choice(["f16", "q8_0", "q4_0"]),
    default="f16",
    show_default=True,
    help="Type of the KV cache.",
)
@click.option(
    "--flash-attention",
    type=click.Choice(["auto", "on", "off"]),
    default="auto",
    show_default=True,
)
@click.option(
    "--rpc",
    multiple=True,
    metavar="HOST:PORT",
    help="llama.cpp RPC worker that holds a part of the model; repeatable. The link is not "
    "authenticated.",
)
@click.option("--audit", is_flag=True, help="Compare the rotation of every layer with the plan.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option(
    "--report",
    "reports",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Write a report: .html, .png or .json; repeatable.",
)
@json_option
def check() -> None:
    """Ask a model for hidden keys at every length and depth, and report with what certainty.

    Nothing is written to FILE: planned conditions are tried without editing it.
    """
