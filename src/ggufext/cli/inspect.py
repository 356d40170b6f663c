"""``ggufext inspect``: what a model file says of itself."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ggufext.api import models
from ggufext.api.models import Inspection, ModelPlace, Support
from ggufext.cli.options import ModelName, found_model, json_option, model_files
from ggufext.cli.output import (
    FileCommand,
    handle_files,
    show_json,
    show_table,
    show_warnings,
)
from ggufext.cli.waiting import Told, waiting
from ggufext.errors import printable, printable_message, shown
from ggufext.presenting import sentences
from ggufext.presenting.documents import KnownPlaces
from ggufext.text import binary_size, counted, percent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Literal

    from ggufext.api.models import SurveyedModel
    from ggufext.api.plans import Evidence
    from ggufext.cli.waiting import Wait

_SUPPORT = {
    Support.VERIFIED: "verified with llama.cpp",
    Support.READ: "read from llama.cpp's source, not tried",
    Support.UNKNOWN: "unknown to llama.cpp",
}


@click.command(short_help="Say what models are and what looks wrong.")
@click.argument(
    "paths", metavar="[FILE|FOLDER]...", nargs=-1, type=ModelName(), callback=model_files
)
@click.option(
    "--layers",
    is_flag=True,
    help="Say of each layer how it rotates and what it holds, and of each type its share.",
)
@json_option
def inspect(paths: tuple[Path | str, ...], layers: bool, as_json: bool) -> None:
    """Say what models are, how they rotate, what they cost and what looks wrong.

    A FILE may be a path, ollama:NAME, an address (https://…) or hf://owner/repo/file.gguf. Of a
    FOLDER all models in it are listed; without a name, those of Ollama, the Hugging Face cache,
    LM Studio and llama.cpp. Nothing is written.
    """
    if not paths:
        _show_known_places(as_json=as_json)
        return
    work = FileCommand(
        do=_found,
        as_json=lambda _path, found: found,
        show=partial(_show, layers=layers),
        columns=("architecture", "context", "base", "weights", "bytes", "next edit by"),
        cells=_cells,
    )
    handle_files(paths, work, as_json=as_json)


def _found(path: Path | str, wait: Wait) -> Inspection | ModelPlace:
    model = found_model(path, wait)
    if isinstance(model, Path) and model.is_dir():
        return models.place_of(model, progress=_read_in(wait, str(model)))
    return models.inspect(model)


def _read_in(wait: Wait, place: str) -> Callable[[int, int], None]:
    """What hears how many models of a place are read."""
    return lambda done, total: wait.tell(Told(f"reading {place}", done, total, "models"))


def _show_known_places(*, as_json: bool) -> None:
    with waiting("looking for models") as wait:
        places = models.known_places(progress=_read_in(wait, "all places"))
    if as_json:
        show_json(KnownPlaces(places))
        return
    for place in places:
        _show_place(place)
    if not places:
        click.echo(
            "no models of Ollama, the Hugging Face cache, LM Studio or llama.cpp here; name a "
            "file or a folder"
        )


def _show(path: Path | str, found: Inspection | ModelPlace, *, layers: bool) -> None:
    if isinstance(found, ModelPlace):
        _show_place(found)
        return
    name = shown(str(path))
    if name != str(found.path):
        name = f"{name} ({found.path})"
    click.echo(click.style(printable(name), bold=True))
    for line in _lines(path, found, layers=layers):
        click.echo(line)
    show_warnings(found.warnings, found.path)


def _cells(found: Inspection | ModelPlace) -> tuple[str, ...]:
    if isinstance(found, ModelPlace):
        size = sum(model.size for model in found.models)
        return (counted(len(found.models), "model"), "", "", "", f"{size:,}", "")
    return (
        printable(found.architecture, 64),
        f"{found.train_length.value:,}" if found.train_length else "",
        f"{found.rope.freq_base:,.10g}" if found.rope else "",
        found.quantization or "",
        f"{found.size:,}",
        found.likely_strategy.value if found.likely_strategy else "",
    )


def _row(name: str, value: str) -> str:
    """One line of a description."""
    return f"  {name:<18} {value}"


def _lines(path: Path | str, found: Inspection, *, layers: bool) -> Iterator[str]:
    support = _SUPPORT[found.support]
    if any(warning.code == "would_not_load" for warning in found.warnings):
        support = "llama.cpp does not load this file"
    yield _row("architecture", f"{printable(found.architecture, 64)} ({support})")
    if found.shards:
        first, last = found.shards[0].path.name, found.shards[-1].path.name
        yield _row("parts", f"{len(found.shards)}: {printable(first)} to {printable(last)}")
    yield _row(
        "file" if not found.shards else "files",
        f"{binary_size(found.size)}, {found.tensor_count:,} tensors, {found.key_count:,} keys, "
        f"{found.quantization or 'no'} weights",
    )
    if found.train_length is not None:
        yield _row(
            "context length",
            f"{found.train_length.value:,} ({printable(found.train_length.source, 80)})",
        )
    if found.rope is not None:
        default = f" ({found.rope.freq_base_source})" if found.rope.base_is_default else ""
        yield _row(
            "rope",
            f"base {found.rope.freq_base:,.10g}{default}, {found.rope.rotary_dim} of "
            f"{found.head_dim} dimensions, {found.rope.layout.value} pairs, scaling "
            f"{_rope_scaling(found)}",
        )
    if found.kv_cache_bytes_per_token is not None:
        cache = found.kv_cache_bytes_per_token
        sizes = {"f16": cache.f16, "q8_0": cache.q8_0, "q4_0": cache.q4_0}
        known = [f"{name} {size:,}" for name, size in sizes.items() if size is not None]
        yield _row("KV cache", f"bytes a token: {', '.join(known)}")
    if layers:
        weights = sum(each.size for each in found.tensor_types)
        for each in found.tensor_types:
            share = f"{binary_size(each.size)}, {percent(each.size / max(weights, 1))}"
            yield _row("weights", f"{each.tensors:,} tensors {each.type}, {share}")
    if layers and found.layers is not None:
        for name, what in sentences.layer_rows(found.layers):
            yield _row(name, what)
    if found.likely_strategy is not None:
        yield _row("editing", f"next edit by {found.likely_strategy.value}")
    yield from _training(path, found)


def _rope_scaling(found: Inspection) -> str:
    assert found.rope is not None
    scaling, how = found.rope.scaling, "none"
    if scaling.factor_tensors:
        how = f"by {', '.join(scaling.factor_tensors)}"
    elif scaling.factor != 1.0 and scaling.type != "none":
        how = f"{scaling.type} by {scaling.factor:g}"
        betas = scaling.beta_fast, scaling.beta_slow
        if scaling.type == "yarn" and betas != (32.0, 1.0):
            how += f" with betas {scaling.beta_fast:g} and {scaling.beta_slow:g}"
    if scaling.attention_factor != 1.0:
        how += f", attention times {scaling.attention_factor:.4g}"
    return how


def _training(path: Path | str, found: Inspection) -> Iterator[str]:
    """What is known of the training beside the file's own keys, and what was extended since."""
    if found.published is not None:
        said, reach = found.published, found.published.yarn_length
        yarn = f", YaRN {said.yarn_factor:g} to {reach:,}" if reach else ""
        yield _row(
            "documented",
            f"{said.family}: trained on {said.train_length:,}{yarn} ({said.source})",
        )
    if found.history is None and found.earlier_extension is not None:
        earlier = found.earlier_extension
        how = f" by {printable(earlier.method, 20)}" if earlier.method else ""
        yield _row(
            "extended",
            f"from {earlier.train_length:,} to {earlier.target_length:,} tokens{how}; "
            "plans start from before, `ggufext undo` cannot give that back",
        )
    if found.history is not None:
        undo = models.undo_command(path)
        undoing = f"; `{undo}` gives the original back" if undo else ""
        yield _row(
            "extended" if found.history.method else "edited",
            f"{printable(found.history.time, 40)} by {printable(found.history.tool, 40)}: "
            f"{', '.join(_edits(found))}{undoing}",
        )
        if found.history.evidence is not None:
            yield from _evidence(found.history.evidence)


def _edits(found: Inspection) -> Iterator[str]:
    edits = found.history
    assert edits is not None
    if edits.method is not None:
        yield f"{printable(edits.method, 20)} to {edits.target_length:,} tokens"
    if edits.set_keys or edits.method is None:
        yield f"set {printable(', '.join(edits.set_keys) or 'back to what it was')}"


def _evidence(found: Evidence) -> Iterator[str]:
    yield _row(
        "measured before",
        f"by {printable(found.tool, 40)} on {counted(found.texts, 'text')}, "
        f"llama.cpp {printable(found.llama_cpp, 40)}: {printable_message(found.reason)}",
    )
    for each in found.measurements:
        yield _row("", sentences.measurement_text(each))


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


def _show_place(place: ModelPlace) -> None:
    """Print the models of a place, a line each."""
    found = printable_message(place.problem.message) if place.problem else _sum(place.models)
    heading = f"{_PLACES[place.where]}{printable(str(place.path))}: {found}"
    click.echo(click.style(heading, bold=True))
    rows = [_survey_cells(model) for model in place.models]
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


def _survey_cells(model: SurveyedModel) -> tuple[str, ...]:
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
    unread = sum(model.architecture is None for model in models)
    size = binary_size(sum(model.size for model in models))
    return f"{counted(len(models), 'model')}, {size}" + (
        f", {unread} of them not readable" if unread else ""
    )
