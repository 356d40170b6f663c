"""Writes commands.md, the command reference, from the help texts of the command line.

python docs/write_commands.py
"""

from __future__ import annotations

from pathlib import Path

import click

from ggufext.cli import cli

PAGE = Path(__file__).with_name("commands.md")
#: Columns of the help texts; a page is wider than most terminals.
WIDTH = 98
INTRODUCTION = """\
# Commands

The help texts of every command, as `ggufext COMMAND --help` prints them.

Exit status: 0 done, 1 refused or failed, 2 wrong usage, 3 a required bound was missed or
`diff` found differences, 130 interrupted. With `--json` the result, or the error, is one JSON
object on standard output.
"""


def page() -> str:
    """Text of commands.md."""
    context = click.Context(cli, info_name="ggufext", **cli.context_settings)
    sections = [INTRODUCTION]
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        assert command is not None
        sections.append(f"## {name}\n\n```text\n{_help(command, context)}\n```\n")
    return "\n".join(sections)


def _help(command: click.Command, parent: click.Context) -> str:
    context = click.Context(
        command,
        info_name=command.name,
        parent=parent,
        terminal_width=WIDTH,
        max_content_width=WIDTH,
    )
    return command.get_help(context)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
