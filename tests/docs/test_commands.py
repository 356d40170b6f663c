"""The command reference says what the commands themselves say."""

import subprocess
import sys
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


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
