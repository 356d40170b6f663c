"""The pages name commands and options that there are; the reference says what these say."""

import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

from ggufext.cli import cli

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [*DOCS.glob("*.md"), *ROOT.glob("*.md"), ROOT / "models" / "README.md"]
#: A command as it is typed: at the start of a line or of a text in code, with its continued lines.
TYPED = re.compile(r"(?:^ *\$ |`)ggufext ([a-z]+)((?:\\\n|[^\n`#])*)", re.MULTILINE)


def test_command_reference_is_what_the_help_texts_say() -> None:
    # A process of its own: click keeps what other tests made of a command.
    printed = subprocess.run(
        [sys.executable, "-c", "import write_commands; print(write_commands.page(), end='')"],
        cwd=DOCS,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert (DOCS / "commands.md").read_text(encoding="utf-8") == printed, (
        "run: python docs/write_commands.py"
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_options_that_a_page_types_are_there(page: Path) -> None:
    context = click.Context(cli)
    for name, rest in TYPED.findall(page.read_text(encoding="utf-8")):
        command = cli.get_command(context, name)
        assert command is not None, name
        known = {option for each in command.get_params(context) for option in each.opts}
        assert set(re.findall(r"(?<!\S)--[a-z-]+", rest)) <= known, f"{name}{rest}"
