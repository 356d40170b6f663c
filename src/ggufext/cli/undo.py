"""``ggufext undo``: the exact original bytes again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ggufext.cli.options import follow_option, json_option, path_argument
from ggufext.cli.output import show_json
from ggufext.cli.rewrite import copy_progress
from ggufext.editing.rewrite import undo as undo_file
from ggufext.errors import printable

if TYPE_CHECKING:
    from pathlib import Path


@click.command(short_help="Give the exact original bytes back.")
@path_argument
@follow_option
@click.option("--force", is_flag=True, help="Undo although the file is in use.")
@json_option
def undo(path: Path, follow: bool, force: bool, as_json: bool) -> None:
    """Give a rewritten file its exact original bytes back."""
    with copy_progress() as progress:
        done = undo_file(path, follow=follow, force=force, progress=progress)
    if as_json:
        show_json(done)
        return
    how = done.strategy.value if done.strategy else "nothing"
    click.echo(f"{printable(str(done.path))}: original restored by {how}, {done.size:,} bytes")
