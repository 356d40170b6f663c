"""What ``--json`` prints where it is more, or less, than what a public function returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ggufext.errors import shown
from ggufext.text import MERGED

if TYPE_CHECKING:
    from pathlib import Path

    from ggufext.api.edits import Receipt
    from ggufext.api.emissions import Emission
    from ggufext.api.headers import KeyDifference
    from ggufext.api.models import ModelPlace
    from ggufext.api.plans import CacheFit, DynamicPlan, Plan, SelfExtendPlan
    from ggufext.errors import GgufextError


@dataclass(frozen=True, slots=True)
class PlannedModel:
    """What one method would write into a model, and what to expect of it.

    Attributes
    ----------
    path : str
        The model as it was named.
    plan : Plan
    emit : tuple of Emission
        The plan for other programs, those that were asked for.
    memory : tuple of CacheFit
        What fits into the memory that was named, by type of KV cache; empty where none was.
    """

    path: str
    plan: Plan = field(metadata=MERGED)
    emit: tuple[Emission, ...] = ()
    memory: tuple[CacheFit, ...] = ()


@dataclass(frozen=True, slots=True)
class PlannedModels:
    """Every method side by side.

    Attributes
    ----------
    plans : tuple of PlannedModel
        One a method; a single one where no extension is needed.
    documented : PlannedModel or None
        What the model's publisher documents, where that is an extension.
    """

    plans: tuple[PlannedModel, ...]
    documented: PlannedModel | None


@dataclass(frozen=True, slots=True)
class RunTimePlanned:
    """A method that no file can hold: options for llama.cpp.

    Attributes
    ----------
    path : str
        The model as it was named.
    plan : DynamicPlan or SelfExtendPlan
    """

    path: str
    plan: DynamicPlan | SelfExtendPlan = field(metadata=MERGED)


@dataclass(frozen=True, slots=True)
class RewrittenModel:
    """A plan, and what became of it.

    Attributes
    ----------
    path : str
        The model as it was named.
    plan : Plan
    receipt : Receipt
    verified : tuple of str
        What ``--verify`` compared, a sentence each.
    modelfile : str or None
        The text that makes a model of Ollama of the new file, where it was made from one of
        Ollama's.
    """

    path: str
    plan: Plan = field(metadata=MERGED)
    receipt: Receipt = field(metadata=MERGED)
    verified: tuple[str, ...]
    modelfile: str | None


@dataclass(frozen=True, slots=True)
class ChangedModel:
    """Keys that were set or deleted, and what became of the file.

    Attributes
    ----------
    path : str
        The model as it was named.
    changes : tuple of KeyDifference
        Keys that hold something else than before; empty where they all held it already.
    receipt : Receipt
    verified : tuple of str
        What ``--verify`` compared, a sentence each.
    modelfile : str or None
        The text that makes a model of Ollama of the new file, where it was made from one of
        Ollama's.
    """

    path: str
    changes: tuple[KeyDifference, ...]
    receipt: Receipt = field(metadata=MERGED)
    verified: tuple[str, ...]
    modelfile: str | None


@dataclass(frozen=True, slots=True)
class KnownPlaces:
    """The places of this user and this machine that hold models.

    Attributes
    ----------
    places : tuple of ModelPlace
        With their models.
    """

    places: tuple[ModelPlace, ...]


@dataclass(frozen=True, slots=True)
class Error:
    """What went wrong: a code for programs, a sentence for people.

    Attributes
    ----------
    code : str
        Stable name of the case, as docs/errors.md lists it.
    message : str
        What was found, what was expected and what to do.
    field : str or None
        The metadata key, tensor or entry concerned.
    offset : int or None
        Place in the file, bytes.
    """

    code: str
    message: str
    field: str | None
    offset: int | None


@dataclass(frozen=True, slots=True)
class Failure:
    """What is printed where a command, or its work on one of several files, fails.

    Attributes
    ----------
    path : str or None
        The file concerned, or the name of a remote one; null where the error is of none.
    error : Error
    """

    path: str | None
    error: Error


def failure_of(error: GgufextError, path: Path | str | None = None) -> Failure:
    """An error as programs read it; of the file that was named, where that is known."""
    path = path or error.path
    name = None if path is None else shown(str(path))
    return Failure(name, Error(error.code, error.message, error.field, error.offset))
