"""The command line: thin shells over the public API, and the one place that maps errors."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import NoReturn

import click

from ggufext import __version__
from ggufext.errors import GgufextError, of_system

#: Modules of the commands by name, loaded when one is called.
_COMMANDS = {
    "inspect": "inspect",
    "plan": "plan",
    "rewrite": "edits",
    "set": "edits",
    "undo": "edits",
    "recover": "edits",
    "diff": "diff",
    "check": "check",
    "compare": "compare",
    "measure": "measure",
    "tune": "tune",
    "doctor": "doctor",
    "completion": "doctor",
}


class _Commands(click.Group):
    """A group whose commands are imported when they are needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        # Some have a name that Python uses itself.
        commands = vars(import_module(f"ggufext.cli.{_COMMANDS[cmd_name]}")).values()
        return next(x for x in commands if isinstance(x, click.Command) and x.name == cmd_name)


@click.group(
    cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 98}
)
@click.version_option(__version__, prog_name="ggufext")
def cli() -> None:
    """Extend the context of GGUF models in place.

    \b
    ggufext inspect                            the models of Ollama, LM Studio and other programs
    ggufext plan model.gguf --target 32k       every method side by side, nothing written
    ggufext rewrite model.gguf --target 32k    write the RoPE metadata in place
    ggufext undo model.gguf                    the exact original bytes again
    ggufext check model.gguf --lengths 8k,32k  where it still finds a key, with what certainty
    ggufext compare model.gguf --target 32k    which method works on it, measured
    """  # noqa: D301 - click's mark of lines to be kept as they are


def main() -> None:
    """Run the command line.

    Exit 0 done, 1 refused or failed, 2 usage, 3 a required bound was missed or `diff` found
    differences, 130 interrupted.
    """
    as_json = "--json" in sys.argv[1:]
    try:
        cli.main(standalone_mode=False)
    except GgufextError as error:
        _fail(error, as_json=as_json)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        sys.exit(130)
    except BrokenPipeError:
        # Whoever read the output has enough; nothing more can be said there.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        _fail(of_system(error), as_json=as_json)


def _fail(error: GgufextError, *, as_json: bool) -> NoReturn:
    from ggufext.cli.output import show_error  # --version and --help show none

    show_error(error, as_json=as_json)
    sys.exit(1)
