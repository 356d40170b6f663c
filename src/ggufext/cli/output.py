"""Results as JSON or text, errors and warnings on standard error."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from ggufext.errors import printable
from ggufext.json_text import json_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from ggufext.errors import GgufextError, ModelWarning


#: What to say of a file that another program had open while it was replaced.
IN_USE = "in use: programs that have it open keep the old file until they open it again"


def show_json(value: object) -> None:
    """Print one JSON document on standard output."""
    click.echo(json_text(value))


def error_as_json(error: GgufextError) -> Mapping[str, object]:
    """The error object that programs read."""
    return {
        "error": {
            "code": error.code,
            "message": error.message,
            "field": error.field,
            "offset": error.offset,
        }
    }


def show_error(error: GgufextError, *, as_json: bool) -> None:
    """Say an error in one line on standard error, and as JSON on standard output if asked."""
    click.echo(f"{click.style('error', fg='red', bold=True)}: {error}", err=True)
    if as_json:
        show_json(error_as_json(error))


def show_warnings(warnings: Iterable[ModelWarning], path: Path | str) -> None:
    """Say each warning about a file in one line on standard error, the first with its path."""
    label = click.style("warning", fg="yellow", bold=True)
    place = f"{printable(str(path))}: "
    for warning in warnings:
        click.echo(f"{label}: {place}{printable(warning.message)}", err=True)
        place = ""


def show_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table on standard output: drawn on a terminal, aligned text elsewhere."""
    if not sys.stdout.isatty():
        cells = [columns, *rows]
        widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
        for row in cells:
            padded = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            click.echo("  ".join(padded).rstrip())
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(*columns)
    for row in rows:
        table.add_row(*row)
    Console(markup=False).print(table)


def show_note(message: str, path: Path | str) -> None:
    """Say what was made of a path, in one line on standard error."""
    click.echo(f"note: {printable(str(path))}: {printable(message)}", err=True)
