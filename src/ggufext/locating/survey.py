"""One line about each of many models."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ggufext.errors import GgufextError, ModelWarning
from ggufext.header.architectures import architecture
from ggufext.header.lint import lint
from ggufext.header.model import (
    Scaling,
    TrainLength,
    architecture_name,
    model_facts,
)
from ggufext.header.quantization import quantization
from ggufext.header.reading import read_header
from ggufext.header.shards import later_shards

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from ggufext.header.architectures import Support
    from ggufext.header.header import Header
    from ggufext.header.model import ModelFacts
    from ggufext.locating.folder import ModelFiles

#: Findings that the table says in a column of their own.
_SAID_ELSEWHERE = frozenset({"unverified_architecture", "unknown_architecture"})


@dataclass(frozen=True, slots=True)
class SurveyedModel:
    """What a table of models says of one; what could not be read is None.

    Attributes
    ----------
    name : str
        As its place calls it.
    path : Path
        The file, or the first part of a split set.
    parts : int
    size : int
        Bytes of all parts that are here.
    train_length : TrainLength or None
        Context length that the file declares.
    scaling : Scaling or None
    problems : tuple of ModelWarning
        Why it cannot be read or extended, and what looks wrong.
    """

    name: str
    path: Path
    parts: int
    architecture: str | None
    quantization: str | None
    size: int
    train_length: TrainLength | None
    scaling: Scaling | None
    support: Support | None
    problems: tuple[ModelWarning, ...]


def survey(models: Iterable[ModelFiles]) -> tuple[SurveyedModel, ...]:
    """A line about each model, in the same order; nothing is raised for a broken one."""
    from concurrent.futures import ThreadPoolExecutor

    # The header is read without the interpreter's lock, so threads read side by side.
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        return tuple(pool.map(survey_one, models))


def survey_one(model: ModelFiles) -> SurveyedModel:
    """What a table says of one model."""
    found = _of_files(model)
    return SurveyedModel(
        name=model.name,
        path=model.paths[0],
        parts=model.parts,
        architecture=found.architecture,
        quantization=found.quantization,
        size=sum(map(_size, model.paths)),
        train_length=found.train_length,
        scaling=found.scaling,
        support=found.support,
        problems=found.problems,
    )


@dataclass(frozen=True, slots=True)
class _Found:
    """What the headers of a model say."""

    problems: tuple[ModelWarning, ...]
    architecture: str | None = None
    quantization: str | None = None
    train_length: TrainLength | None = None
    scaling: Scaling | None = None
    support: Support | None = None


def _of_files(model: ModelFiles) -> _Found:
    if not model.has_first:
        missing = ModelWarning("shard_missing", "the first part is not in the folder")
        return _Found((missing,))
    try:
        header = read_header(model.paths[0])
        name = architecture_name(header)
    except GgufextError as error:
        return _Found((_problem(error),))
    problems: list[ModelWarning] = []
    later: tuple[Header, ...] = ()
    try:
        later = later_shards(header)
    except GgufextError as error:
        problems.append(_problem(error))
    facts: ModelFacts | None = None
    try:
        facts = model_facts(header, later_shards=later)
    except GgufextError as error:
        problems.append(_problem(error))
    else:
        found = lint(header, facts, later_shards=later)
        problems += [warning for warning in found if warning.code not in _SAID_ELSEWHERE]
    return _Found(
        problems=tuple(problems),
        architecture=name,
        quantization=quantization(header, *later),
        train_length=TrainLength(facts.train_length, facts.train_length_source) if facts else None,
        scaling=facts.scaling if facts else None,
        support=architecture(name).support,
    )


def _problem(error: GgufextError) -> ModelWarning:
    place = f"{error.field}: " if error.field else ""
    return ModelWarning(error.code, f"{place}{error.message}")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
