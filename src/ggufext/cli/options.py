"""Arguments and options that several commands share."""

from __future__ import annotations

import re
from pathlib import Path

import click
from click.shell_completion import CompletionItem

from ggufext.cli.output import show_note
from ggufext.errors import GgufextError
from ggufext.header.shards import first_shard
from ggufext.locating.names import is_remote, local_path
from ggufext.planning.methods import Method

_MULTIPLES = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}


class Size(click.ParamType["int"]):
    """A number with a binary multiple: 32768, 32k, 32K, 1m."""

    def __init__(self, name: str, units: str) -> None:
        self.name = name
        self._units = units
        self._pattern = re.compile(rf"(\d{{1,15}})([{units}]?)", re.IGNORECASE)

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        """Bytes or tokens."""
        if isinstance(value, int):
            return value
        match = self._pattern.fullmatch(str(value))
        if match is None or int(match[1]) == 0:
            units = ", ".join(self._units)
            self.fail(
                f"{value!r} is not a size: a whole number above 0, with {units} or nothing",
                param,
                ctx,
            )
        return int(match[1]) * _MULTIPLES[match[2].lower()]


class LocalModel(click.ParamType["Path"]):
    """A model on this machine: a path, or ollama:NAME[:TAG]."""

    name = "model"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> Path:
        """The file; raises LocationError for a name that leads to none."""
        return value if isinstance(value, Path) else local_path(str(value))

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Files, as the shell knows them."""
        return [CompletionItem(incomplete, type="file")]


class ModelName(click.ParamType["str"]):
    """A model's name as typed: each is looked up where one that fails stops no other."""

    name = "model"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Files, as the shell knows them."""
        return [CompletionItem(incomplete, type="file")]


TOKENS = Size("tokens", "km")
BYTES = Size("bytes", "kmgt")


def model_files(
    _context: click.Context, _parameter: click.Parameter, value: object
) -> tuple[str | Path, ...] | str | Path | None:
    """Click's callback for models: a later part of a split model stands for the first.

    That is said, once a set, where the first is not named too.
    """
    if isinstance(value, tuple):
        firsts = {name: _first_shard(name) for name in value}
        said = set(value)
        for name, first in firsts.items():
            if first not in said:
                _say_first_shard(name, first)
                said.add(first)
        return tuple(firsts.values())
    if not isinstance(value, (str, Path)):
        return None
    first = _first_shard(value)
    if first != value:
        _say_first_shard(value, first)
    return first


def _first_shard(name: str | Path) -> str | Path:
    """The name, or that of the first part, of the same type."""
    try:
        return name if is_remote(name) else type(name)(first_shard(local_path(name)))
    except (GgufextError, OSError):
        return name  # the command says what is wrong with it


def _say_first_shard(name: str | Path, first: str | Path) -> None:
    show_note(f"is a later part of a split model: taken as {Path(first).name}", name)


path_argument = click.argument("path", metavar="FILE", type=LocalModel(), callback=model_files)
name_argument = click.argument("name", metavar="FILE", type=ModelName(), callback=model_files)
names_argument = click.argument(
    "names",
    metavar="FILE...",
    nargs=-1,
    required=True,
    type=ModelName(),
    callback=model_files,
)
target_option = click.option(
    "--target", "target_length", type=TOKENS, required=True, help="Context length wanted: 32k, 1m."
)
gamma_option = click.option(
    "--gamma",
    type=click.FloatRange(-1, 1, min_open=True, max_open=True),
    help="Decay exponent wanted at the target, for method gamma; the native one is kept without.",
)
train_length_option = click.option(
    "--train-length",
    type=TOKENS,
    help="Length the model was really trained on, where the file says something else.",
)
allow_lower_base_option = click.option(
    "--allow-lower-base", is_flag=True, help="Accept a --gamma that lowers the RoPE base."
)
follow_option = click.option(
    "--follow", is_flag=True, help="Edit the file that a symbolic link points to."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")


METHOD = click.Choice([method.value for method in Method])
