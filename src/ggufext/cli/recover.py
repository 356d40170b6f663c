"""``ggufext recover``: after an interrupted edit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ggufext.cli.options import follow_option, json_option, path_argument
from ggufext.cli.output import show_json
from ggufext.editing.recovery import State
from ggufext.editing.rewrite import recover as recover_file
from ggufext.errors import printable

if TYPE_CHECKING:
    from pathlib import Path

_SENTENCES = {
    State.RESTORED: "is as it was before the interrupted edit",
    State.FINISHED: "the interrupted edit is finished",
    State.UNTOUCHED: "is complete: nothing had to be done",
}


@click.command(short_help="Finish or take back an interrupted edit.")
@path_argument
@follow_option
@click.option(
    "--force", is_flag=True, help="Recover a file that is in use, where no program can load it."
)
@json_option
def recover(path: Path | str, follow: bool, force: bool, as_json: bool) -> None:
    """Bring a file whose edit was interrupted to its old or its new state."""
    done = recover_file(path, follow=follow, force=force)
    if as_json:
        show_json(done)
    else:
        click.echo(f"{printable(str(done.path))}: {_SENTENCES[done.state]}, {done.size:,} bytes")
