"""``ggufext doctor`` and ``completion``: the machine, and the shell."""

from __future__ import annotations

from pathlib import Path

import click
from click.shell_completion import get_completion_class

from ggufext.api import doctor as api
from ggufext.cli.options import json_option, llama_cpp_option
from ggufext.cli.output import show_json
from ggufext.cli.waiting import waiting
from ggufext.errors import printable


@click.command(short_help="Say what this machine and a folder allow.")
@click.argument(
    "folder",
    metavar="[FOLDER]",
    default=".",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
)
@llama_cpp_option
@json_option
def doctor(folder: Path, llama_cpp: Path | None, as_json: bool) -> None:
    """Say what this machine, its libraries and the models' FOLDER allow.

    The folder is tried with a nameless temporary file.
    """
    with waiting("asking this machine and its libraries"):
        findings = api.doctor(folder, llama_cpp=llama_cpp)
    if as_json:
        show_json(findings)
        return
    for name, finding in findings.items():
        mark = "" if finding.ok else click.style("! ", fg="yellow")
        click.echo(f"{name.replace('_', ' '):<17} {mark}{printable(finding.value)}")
        if finding.hint:
            click.echo(f"{'':<17} {printable(finding.hint)}")


_SHELLS = ("bash", "zsh", "fish")


@click.command(short_help="Print a script that completes commands.")
@click.argument("shell", type=click.Choice(_SHELLS, case_sensitive=False))
def completion(shell: str) -> None:
    """Print the script with which SHELL completes commands, options and files of ggufext.

    \b
    bash: eval "$(ggufext completion bash)"    in ~/.bashrc
    zsh:  eval "$(ggufext completion zsh)"     in ~/.zshrc
    fish: ggufext completion fish | source     in ~/.config/fish/config.fish
    """  # noqa: D301 - click's mark of lines to be kept as they are
    from ggufext.cli import cli

    found = get_completion_class(shell)
    assert found is not None
    click.echo(found(cli, {}, "ggufext", "_GGUFEXT_COMPLETE").source())
