"""Many models as a table, a line each."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from ggufext.cli.output import show_table
from ggufext.errors import printable
from ggufext.text import binary_size

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Literal

    from ggufext.locating.places import ModelPlace, SurveyedModel

_PLACES = {
    "folder": "",
    "ollama": "Ollama, ",
    "huggingface_cache": "Hugging Face cache, ",
    "lm_studio": "LM Studio, ",
    "llama_cpp_cache": "llama.cpp's cache, ",
}

_COLUMNS = (
    "name", "architecture", "weights", "size", "context", "scaling", "support", "problem",
)  # fmt: skip
_RIGHT = frozenset({"size", "context"})
_FOLDED = frozenset({"name", "problem"})


def show_place(place: ModelPlace) -> None:
    """Print the models of a place, a line each."""
    found = printable(place.problem.message) if place.problem else _sum(place.models)
    heading = f"{_PLACES[place.where]}{printable(str(place.path))}: {found}"
    click.echo(click.style(heading, bold=True))
    rows = [_cells(model) for model in place.models]
    if rows and sys.stdout.isatty():
        _draw(rows)
    elif rows:
        show_table(_COLUMNS, rows)


def _draw(rows: Sequence[tuple[str, ...]]) -> None:
    """Print the table on a terminal: without empty columns, long names on several lines."""
    from rich.console import Console
    from rich.table import Table

    used = [i for i in range(len(_COLUMNS)) if any(row[i] for row in rows)]
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for i in used:
        justify: Literal["left", "right"] = "right" if _COLUMNS[i] in _RIGHT else "left"
        keeps_line = _COLUMNS[i] not in _FOLDED
        table.add_column(_COLUMNS[i], justify=justify, no_wrap=keeps_line, overflow="fold")
    for row in rows:
        table.add_row(*(row[i] for i in used))
    Console(markup=False, emoji=False, highlight=False).print(table)


def _cells(model: SurveyedModel) -> tuple[str, ...]:
    name = printable(model.name)
    if model.parts > 1:
        name += f" ({model.parts} parts)"
    length = f"{model.train_length.value:,}" if model.train_length else ""
    problems = ", ".join(problem.code for problem in model.problems)
    return (
        name,
        printable(model.architecture or "", 32),
        model.quantization or "",
        binary_size(model.size),
        length,
        _scaling(model),
        model.support.value if model.support else "",
        problems,
    )


def _scaling(model: SurveyedModel) -> str:
    scaling = model.scaling
    if scaling is None or not scaling.in_effect:
        return ""
    if scaling.factor != 1.0:
        return f"{scaling.type} ×{scaling.factor:g}"
    return "factors" if scaling.factor_tensors else scaling.type


def _sum(models: Sequence[SurveyedModel]) -> str:
    count = "1 model" if len(models) == 1 else f"{len(models):,} models"
    unread = sum(model.architecture is None for model in models)
    size = binary_size(sum(model.size for model in models))
    return f"{count}, {size}" + (f", {unread} of them not readable" if unread else "")
