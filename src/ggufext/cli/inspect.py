"""``ggufext inspect``: what a model file says of itself."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from ggufext.cli.options import json_option, paths_argument
from ggufext.cli.output import (
    binary_size,
    error_as_json,
    show_error,
    show_json,
    show_warnings,
    tokens,
)
from ggufext.editing.inspection import Inspection
from ggufext.editing.inspection import inspect as inspect_file
from ggufext.errors import GgufextError, printable
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
    results: list[object] = []
    failed = False
    for path in paths:
        try:
            inspection = inspect_file(path)
        except GgufextError as error:
            failed = True
            results.append({"path": path, **error_as_json(error)})
            if len(paths) == 1:
                raise
            show_error(error, as_json=False)
            continue
        results.append(inspection)
        if not as_json:
            for line in _lines(inspection):
                click.echo(line)
            show_warnings(inspection.warnings, path)
    if as_json:
        show_json(results[0] if len(paths) == 1 else {"files": results})
    if failed:
        sys.exit(1)


def _lines(found: Inspection) -> Iterator[str]:
    yield click.style(printable(str(found.path)), bold=True)

    def row(name: str, value: str) -> str:
        return f"  {name:<18} {value}"

    yield row("architecture", f"{printable(found.architecture, 64)} ({_SUPPORT[found.support]})")
    yield row(
        "file",
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
        if scaling.factor_tensors:
            how = f"by {', '.join(scaling.factor_tensors)}"
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
