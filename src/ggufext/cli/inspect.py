"""``ggufext inspect``: what a model file says of itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ggufext.cli.options import json_option, paths_argument
from ggufext.cli.output import binary_size, show_warnings, tokens
from ggufext.cli.several import Work, handle_files
from ggufext.editing.inspection import Inspection
from ggufext.editing.inspection import inspect as inspect_file
from ggufext.errors import printable
from ggufext.header.architectures import Support

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_SUPPORT = {
    Support.VERIFIED: "verified with llama.cpp",
    Support.READ: "read from llama.cpp's source, not tried",
    Support.UNKNOWN: "unknown",
}


@click.command(short_help="Say what models are and what looks wrong.")
@paths_argument
@json_option
def inspect(paths: tuple[Path, ...], as_json: bool) -> None:
    """Say what models are, how they rotate, what they cost and what looks wrong.

    Nothing is written.
    """
    work = Work(
        do=inspect_file,
        as_json=lambda _path, found: found,
        show=_show,
        columns=("architecture", "context", "base", "weights", "bytes", "first edit by"),
        cells=_cells,
    )
    handle_files(paths, work, as_json=as_json)


def _show(path: Path, found: Inspection) -> None:
    for line in _lines(found):
        click.echo(line)
    show_warnings(found.warnings, path)


def _cells(found: Inspection) -> tuple[str, ...]:
    return (
        printable(found.architecture, 64),
        tokens(found.train_length.value) if found.train_length else "",
        f"{found.rope.freq_base:,.10g}" if found.rope else "",
        found.quantization or "",
        f"{found.size:,}",
        found.likely_strategy.value,
    )


def _lines(found: Inspection) -> Iterator[str]:
    yield click.style(printable(str(found.path)), bold=True)

    def row(name: str, value: str) -> str:
        return f"  {name:<18} {value}"

    yield row("architecture", f"{printable(found.architecture, 64)} ({_SUPPORT[found.support]})")
    if found.shards:
        first, last = found.shards[0].path.name, found.shards[-1].path.name
        yield row("parts", f"{len(found.shards)}: {printable(first)} to {printable(last)}")
    yield row(
        "file" if not found.shards else "files",
        f"{binary_size(found.size)}, {found.tensor_count:,} tensors, {found.key_count:,} keys, "
        f"{found.quantization or 'no'} weights",
    )
    if found.train_length is not None:
        yield row(
            "context length", f"{tokens(found.train_length.value)} ({found.train_length.source})"
        )
    if found.rope is not None:
        scaling = found.rope.scaling
        how = (
            "none"
            if scaling.factor == 1.0 or scaling.type == "none"
            else (f"{scaling.type} by {scaling.factor:g}")
        )
        yield row(
            "rope",
            f"base {found.rope.freq_base:,.10g}, {found.rope.rotary_dim} of {found.head_dim} "
            f"dimensions, {found.rope.layout.value} pairs, scaling {how}",
        )
    if found.kv_cache_bytes_per_token is not None:
        cache = found.kv_cache_bytes_per_token
        sizes = {"f16": cache.f16, "q8_0": cache.q8_0, "q4_0": cache.q4_0}
        known = [f"{name} {size:,}" for name, size in sizes.items() if size is not None]
        yield row("KV cache", f"bytes a token: {', '.join(known)}")
    yield row("editing", f"first edit by {found.likely_strategy.value}")
    if found.history is not None:
        yield row(
            "extended",
            f"{printable(found.history.time, 40)} by {printable(found.history.tool, 40)}: "
            f"{printable(found.history.method, 20)} to {tokens(found.history.target_length)} "
            "tokens; `ggufext undo` gives the original back",
        )
