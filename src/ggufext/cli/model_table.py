"""Many models as a table, a line each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ggufext.cli.output import binary_size, tokens
from ggufext.errors import printable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Literal

    from rich.table import Table

    from ggufext.locating.places import ModelPlace
    from ggufext.locating.survey import SurveyedModel

_PLACES = {
    "folder": "",
    "ollama": "Ollama, ",
    "huggingface_cache": "Hugging Face cache, ",
    "lm_studio": "LM Studio, ",
    "llama_cpp_cache": "llama.cpp's cache, ",
}

_COLUMNS = (
    "name",
    "architecture",
    "weights",
    "size",
    "train length",
    "scaling",
    "support",
    "problem",
)
_WRAPPED = frozenset({"name", "problem"})
_RIGHT = frozenset({"size", "train length"})

#: Wide enough for any line: what reads a pipe wraps as it likes.
_PIPE_WIDTH = 10_000


def show_places(places: Sequence[ModelPlace]) -> None:
    """Print the models of every place, a table each."""
    from rich.console import Console

    console = Console(markup=False, emoji=False, highlight=False)
    if not console.is_terminal:
        console = Console(markup=False, emoji=False, highlight=False, width=_PIPE_WIDTH)
    for place in places:
        heading = f"{_PLACES[place.where]}{printable(str(place.path))}: {_sum(place.models)}"
        click.echo(click.style(heading, bold=True))
        if place.models:
            console.print(_table(place.models))


def _table(models: Sequence[SurveyedModel]) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in _COLUMNS:
        justify: Literal["left", "right"] = "right" if column in _RIGHT else "left"
        table.add_column(column, justify=justify, no_wrap=column not in _WRAPPED, overflow="fold")
    for model in models:
        table.add_row(*_cells(model))
    return table


def _cells(model: SurveyedModel) -> tuple[str, ...]:
    name = printable(model.name)
    if model.parts > 1:
        name += f" ({model.parts} parts)"
    length = tokens(model.train_length.value) if model.train_length else ""
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
