"""From a name on the command line to a model that can be read."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ggufext.locating.names import is_remote, local_path
from ggufext.text import binary_size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ggufext.locating.remote import RemoteModel


def found_model(name: Path | str) -> Path | RemoteModel:
    """The file of a name, or the header of a remote one, read with a line that says how far.

    Raises
    ------
    LocationError, HeaderError
    """
    if isinstance(name, Path) or not is_remote(name):
        return local_path(name)
    from ggufext.locating.remote import read_remote  # few names need it

    with _progress() as progress:
        return read_remote(name, progress=progress)


@contextmanager
def _progress() -> Iterator[Callable[[int], None]]:
    """A line on a terminal that is gone when the header is read."""
    if not sys.stderr.isatty():
        yield lambda _read: None
        return
    shown = ""

    def report(read: int) -> None:
        nonlocal shown
        line = f"reading the header: {binary_size(read)}"
        if line != shown:
            click.echo(f"\r{line:<{len(shown)}}", err=True, nl=False)
            shown = line

    try:
        yield report
    finally:
        click.echo(f"\r{'':<{len(shown)}}\r", err=True, nl=False)
