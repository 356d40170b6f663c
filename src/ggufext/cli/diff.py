"""``ggufext diff``: what two headers say differently."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from ggufext.api import headers
from ggufext.cli.options import ModelName, found_model, json_option
from ggufext.cli.output import show_json
from ggufext.cli.waiting import waiting
from ggufext.errors import printable
from ggufext.text import counted

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ggufext.api.headers import (
        HeaderDifference,
        KeyDifference,
        ShownValue,
        TensorDifference,
        TensorInfo,
    )

#: Status where the headers differ: 1 is an error, unlike that of diff(1).
_DIFFERENT = 3

_COLOURS = {"-": "red", "+": "green", "~": "yellow"}


@click.command(short_help="Compare the headers of two models.")
@click.argument("before", metavar="A", type=ModelName())
@click.argument("after", metavar="B", type=ModelName())
@json_option
def diff(before: Path | str, after: Path | str, as_json: bool) -> None:
    """Compare the headers of two models: keys and values, tensors with types and shapes.

    Weights are not compared. Lines begin with - for what only A has, + for what only B has and ~
    for what differs. Exit status 0 where nothing differs, 3 where something does, 1 on failure.
    """
    with waiting("reading headers") as wait:
        found = headers.diff(*(found_model(name, wait) for name in (before, after)))
    if as_json:
        show_json(found)
    else:
        for line in _lines(found):
            click.echo(line)
        differ = f"{counted(len(found.keys), 'key')} and {counted(len(found.tensors), 'tensor')}"
        equal = f"{counted(found.same_keys, 'key')} and {counted(found.same_tensors, 'tensor')}"
        click.echo(f"{differ} differ; {equal} are equal")
    if not found.is_empty:
        sys.exit(_DIFFERENT)


def _lines(found: HeaderDifference) -> Iterator[str]:
    yield from map(key_line, found.keys)
    for tensor in found.tensors:
        before, after = tensor.before, tensor.after
        sides = [_tensor(side) for side in (before, after) if side is not None]
        yield _marked(tensor, f"{printable(tensor.name, 120)}: {' → '.join(sides)}")


def key_line(found: KeyDifference) -> str:
    """A key that differs, in a coloured line."""
    return _marked(found, f"{printable(found.key, 120)}: {_value_line(found)}")


def _marked(found: KeyDifference | TensorDifference, line: str) -> str:
    mark = "-" if found.after is None else "+" if found.before is None else "~"
    return click.style(f"{mark} {line}", fg=_COLOURS[mark])


def _value_line(key: KeyDifference) -> str:
    before, after = key.before, key.after
    if before is None or after is None:
        only = before or after
        assert only is not None
        return _value(only, with_type=True)
    line = " → ".join(_value(side, with_type=before.type != after.type) for side in (before, after))
    is_array = key.first_difference is not None and before.type.startswith("ARRAY")
    return f"{line}, from [{key.first_difference:,}] on" if is_array else line


def _value(value: ShownValue, *, with_type: bool) -> str:
    text = value.text
    if value.type.startswith("ARRAY"):
        text = f"{counted(value.count, 'element')} {text}"
    return f"{text} ({value.type})" if with_type else text


def _tensor(tensor: TensorInfo) -> str:
    return f"{tensor.type} {' × '.join(map(str, tensor.shape)) or 'one element'}"
