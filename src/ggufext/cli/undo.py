"""``ggufext undo``: the exact original bytes again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ggufext.cli.options import follow_option, json_option, paths_argument
from ggufext.cli.output import IN_USE
from ggufext.cli.rewrite import copy_progress
from ggufext.cli.several import Work, handle_files
from ggufext.editing.recovery import State
from ggufext.editing.rewrite import undo as undo_file
from ggufext.errors import printable

if TYPE_CHECKING:
    from ggufext.editing.rewrite import Undone

_SENTENCES = {
    State.RESTORED: "original restored by",
    State.POSSIBLE: "an exact undo is possible, by",
}


@click.command(short_help="Give the exact original bytes back.")
@paths_argument
@follow_option
@click.option("--check", is_flag=True, help="Only say whether an exact undo is possible.")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="Write the original to this new file and leave FILE alone.",
)
@click.option(
    "--force",
    is_flag=True,
    help="Replace a file that is in use by a new one; replace an existing output.",
)
@json_option
def undo(
    paths: tuple[Path | str, ...],
    follow: bool,
    check: bool,
    output: Path | None,
    force: bool,
    as_json: bool,
) -> None:
    """Give rewritten files their exact original bytes back.

    With --check nothing is written; the exit status is 1 where an exact undo is not possible.
    """
    if output is not None and len(set(paths)) > 1:
        raise click.UsageError("--output takes one FILE")

    def do(path: Path | str) -> Undone:
        with copy_progress() as progress:
            return undo_file(
                path, output=output, follow=follow, check=check, force=force, progress=progress
            )

    work = Work(
        do=do,
        as_json=lambda _path, done: done,
        show=_show,
        columns=("state", "by", "original bytes"),
        cells=_cells,
    )
    handle_files(paths, work, as_json=as_json)


def _show(_path: Path | str, done: Undone) -> None:
    by = done.strategy.value if done.strategy else "nothing"
    click.echo(f"{printable(str(done.path))}: {_SENTENCES[done.state]} {by}, {done.size:,} bytes")
    if done.in_use:
        click.echo(f"  {IN_USE}")


def _cells(done: Undone) -> tuple[str, ...]:
    by = done.strategy.value if done.strategy else ""
    return done.state.value, by, f"{done.size:,}"
