"""Plans in the words of other engines, and the configurations of theirs that plans start from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ggufext.api.plans import facts_of
from ggufext.arguments import public
from ggufext.header.facts import ModelFacts
from ggufext.header.hf_config import HfConfig, config_file
from ggufext.header.hf_config import read_config as read
from ggufext.locating.names import is_remote, local_path
from ggufext.planning import emit as emissions
from ggufext.planning.emit import Emission, Engine

if TYPE_CHECKING:
    from ggufext.locating.remote import RemoteModel
    from ggufext.planning.result import Plan

__all__ = ["Emission", "Engine", "HfConfig", "emit", "read_config"]


@public
def read_config(
    model: Path | str | RemoteModel, *, train_length: int | None = None
) -> HfConfig | None:
    """The Hugging Face configuration that a path names, itself or as its folder; else None.

    Parameters
    ----------
    model : Path, str or RemoteModel
    train_length : int, optional
        The real training length in tokens, where max_position_embeddings says something else.

    Raises
    ------
    HeaderError, PlanError
        See `ggufext.header.hf_config.read_config`.
    """
    found = None
    if isinstance(model, (Path, str)) and not is_remote(model):
        found = config_file(local_path(model))
    return None if found is None else read(found, train_length=train_length)


@public
def emit(
    model: Path | str, made: Plan, engine: Engine, *, known: ModelFacts | HfConfig | None = None
) -> Emission:
    """Say a plan in the words of another engine; nothing is written.

    Parameters
    ----------
    model : Path or str
        The GGUF file or config.json that the plan was made for.
    made : Plan
    engine : Engine
    known : ModelFacts or HfConfig, optional
        What was read of it already.

    Raises
    ------
    HeaderError, PlanError
    """
    known = known or read_config(model) or facts_of(model)
    config = known if isinstance(known, HfConfig) else None
    facts = known if isinstance(known, ModelFacts) else known.facts
    if config is not None and Path(model).is_file():
        model = Path(model).parent  # what engines take is the folder
    return emissions.emit(made, facts, engine, model=str(model), config=config)
