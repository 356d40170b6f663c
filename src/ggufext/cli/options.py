"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.shell_completion import CompletionItem

from ggufext.api import names
from ggufext.api.edits import Strategy
from ggufext.api.names import is_name
from ggufext.cli.output import show_note
from ggufext.cli.waiting import Told
from ggufext.errors import GgufextError, shown
from ggufext.text import size_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from ggufext.api.headers import RemoteModel
    from ggufext.cli.waiting import Wait

_Command = TypeVar("_Command", bound="Callable[..., Any]")


class Size(click.ParamType["int"]):
    """A number with a binary multiple: 32768, 32k, 32K, 1m."""

    def __init__(self, name: str, units: str) -> None:
        self.name = name
        self._units = units

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        """Bytes or tokens."""
        if isinstance(value, int):
            return value
        try:
            return size_of(str(value), self._units)
        except ValueError as error:
            self.fail(str(error), param, ctx)


TOKENS = Size("tokens", "km")


class ModelName(click.ParamType["Path | str"]):
    """A model: a path, or a name such as ollama:NAME or hf://owner/repo that stays text."""

    name = "model"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> Path | str:
        """The name is looked up by the command, where one that fails stops no other."""
        text = str(value)
        return text if is_name(text) else Path(text)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Files, as the shell knows them."""
        return [CompletionItem(incomplete, type="file")]


def model_files(
    _context: click.Context,
    _parameter: click.Parameter,
    value: tuple[Path | str, ...] | Path | str | None,
) -> tuple[Path | str, ...] | Path | str | None:
    """Click's callback for paths of models: a later part of a split model stands for the first.

    That is said, once a set, where the first is not named too.
    """
    if value is None:
        return None
    named = value if isinstance(value, tuple) else (value,)
    firsts = {path: _first_shard(path) for path in named}
    said = set(named)
    for path, first in firsts.items():
        if isinstance(first, Path) and first not in said:
            show_note(f"is a later part of a split model: taken as {first.name}", path)
            said.add(first)
    return tuple(firsts.values()) if isinstance(value, tuple) else firsts[value]


def _first_shard(path: Path | str) -> Path | str:
    try:
        return names.first_shard(path) if isinstance(path, Path) else path
    except (GgufextError, OSError):
        return path  # the command says what is wrong with it


path_argument = click.argument("path", metavar="FILE", type=ModelName(), callback=model_files)
paths_argument = click.argument(
    "paths",
    metavar="FILE...",
    nargs=-1,
    required=True,
    type=ModelName(),
    callback=model_files,
)
train_length_option = click.option(
    "--train-length",
    type=TOKENS,
    help="Length the model was really trained on, where the file or its publisher says something "
    "else.",
)
train_freq_base_option = click.option(
    "--train-freq-base",
    type=click.FloatRange(min=1, min_open=True),
    help="RoPE base (rope_theta) the model was really trained with, where the file says something "
    "else.",
)
follow_option = click.option(
    "--follow", is_flag=True, help="Edit the file that a symbolic link points to."
)
llama_cpp_option = click.option(
    "--llama-cpp",
    metavar="PATH",
    type=click.Path(path_type=Path, exists=True),
    help="Use this libllama, or the one in this folder of a build, not the installed llama.cpp.",
)
output_option = click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="Write a new file and leave FILE alone.",
)
no_history_option = click.option(
    "--no-history", is_flag=True, help="Keep nothing for an undo, of earlier edits neither."
)
strategy_option = click.option(
    "--strategy",
    type=click.Choice([strategy.value for strategy in Strategy], case_sensitive=False),
    help="Use this way of writing or refuse; the best one is chosen without.",
)
dry_run_option = click.option(
    "--dry-run", is_flag=True, help="Say which bytes would be written; write nothing."
)
verify_option = click.option(
    "--verify",
    is_flag=True,
    help="Read the result with llama.cpp, without it with gguf-py, and compare.",
)


def edit_options(command: _Command) -> _Command:
    """What `rewrite` and `set` share: where the result goes, how, and what is done around it."""
    options = (
        output_option,
        no_history_option,
        strategy_option,
        follow_option,
        dry_run_option,
        verify_option,
        llama_cpp_option,
    )
    for option in reversed(options):
        command = option(command)
    return command


json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")


def found_model(name: Path | str, wait: Wait) -> Path | RemoteModel:
    """The file of a name, or the header of a remote one, read while its bytes are told.

    Raises
    ------
    LocationError, HeaderError
    """
    what = f"reading the header of {shown(str(name))}"
    return names.find_model(name, progress=lambda read: wait.tell(Told(what, read, unit="bytes")))
