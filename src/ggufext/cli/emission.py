"""Plans for other engines on the command line, and configurations of theirs to plan from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ggufext.errors import printable
from ggufext.header.hf_config import config_file, read_config
from ggufext.planning.emit import emit

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ggufext.header.hf_config import HfConfig
    from ggufext.header.model import ModelFacts
    from ggufext.planning.emit import Emission, Engine
    from ggufext.planning.methods import Method
    from ggufext.planning.result import Plan


def config_of(path: Path, *, train_length: int | None) -> HfConfig | None:
    """The Hugging Face configuration that a path names; None for anything else."""
    found = config_file(path)
    return None if found is None else read_config(found, train_length=train_length)


def emissions(
    path: Path | str,
    plans: Sequence[Plan],
    facts: ModelFacts,
    engines: Sequence[Engine],
    *,
    config: HfConfig | None,
) -> Mapping[Method, tuple[Emission, ...]]:
    """Every plan in the words of every engine."""
    model = str(path.parent if isinstance(path, Path) and config and path.is_file() else path)
    return {
        made.method: tuple(
            emit(made, facts, engine, model=model, config=config) for engine in engines
        )
        for made in plans
    }


def show_emissions(emitted: Mapping[Method, tuple[Emission, ...]]) -> None:
    """Print blocks as they are to be pasted, and what cannot be said."""
    for method, found in emitted.items():
        for emission in found:
            head = f"\n# {emission.engine.value}, {method.value}"
            for block in emission.blocks:
                click.echo(f"{head}: {block.title}")
                click.echo(block.text)
            if emission.not_expressible is not None:
                reason = printable(emission.not_expressible)
                click.echo(f"{head}: not expressible there: {reason}")
            for note in emission.notes:
                click.echo(f"# note: {printable(note)}")
