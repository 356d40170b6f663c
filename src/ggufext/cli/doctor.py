"""``ggufext doctor``: what this machine and a folder allow."""

from __future__ import annotations

from pathlib import Path

import click

from ggufext.cli.options import json_option
from ggufext.cli.output import show_json
from ggufext.doctor import examine
from ggufext.errors import printable


@click.command(short_help="Say what this machine and a folder allow.")
@click.argument(
    "folder",
    metavar="[FOLDER]",
    default=".",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
)
@json_option
def doctor(folder: Path, as_json: bool) -> None:
    """Say what this machine, its libraries and the models' FOLDER allow.

    The folder is tried with a nameless temporary file.
    """
    findings = examine(folder)
    if as_json:
        show_json(findings)
        return
    for name, finding in findings.items():
        mark = "" if finding.ok else click.style("! ", fg="yellow")
        click.echo(f"{name.replace('_', ' '):<17} {mark}{printable(finding.value)}")
        if finding.hint:
            click.echo(f"{'':<17} {printable(finding.hint)}")
