"""``ggufext completion``: the shell's part of completing commands, options and files."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

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
