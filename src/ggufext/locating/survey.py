"""One line about each of many models."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ggufext.errors import GgufextError, ModelWarning, PlanError
from ggufext.header.architectures import architecture
from ggufext.header.lint import lint
from ggufext.header.model import (
    Scaling,
    TrainLength,
    architecture_name,
    model_facts,
    quantization,
)
from ggufext.header.reading import read_header

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from ggufext.header.architectures import Support
    from ggufext.header.header import Header
    from ggufext.locating.folder import ModelFiles

#: Findings that the table says in a column of their own.
_SAID_ELSEWHERE = frozenset({"unverified_architecture"})


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
    # The header is read without the interpreter's lock, so threads read side by side.
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        return tuple(pool.map(survey_one, models))


def survey_one(model: ModelFiles) -> SurveyedModel:
    """What a table says of one model."""
    problems: list[ModelWarning] = []
    if model.missing:
        numbers = ", ".join(map(str, model.missing[:8])) + ("…" if len(model.missing) > 8 else "")
        problems.append(
            ModelWarning("missing_part", f"part {numbers} of {model.parts} is not in the folder")
        )
    headers: list[Header] = []
    size = 0
    for path in model.paths:
        try:
            header = read_header(path)
        except GgufextError as error:
            problems.append(ModelWarning(error.code, f"{path.name}: {error.message}"))
            size += _size(path)
            continue
        headers.append(header)
        size += header.file_size
    has_first = headers and headers[0].path == model.paths[0] and 1 not in model.missing
    found = _first_part(headers[0], parts=model.parts) if has_first else _Found()
    return SurveyedModel(
        name=model.name,
        path=model.paths[0],
        parts=model.parts,
        architecture=found.architecture,
        quantization=quantization(*headers),
        size=size,
        train_length=found.train_length,
        scaling=found.scaling,
        support=found.support,
        problems=(*problems, *found.problems),
    )


@dataclass(frozen=True, slots=True)
class _Found:
    """What the metadata of a model says."""

    architecture: str | None = None
    train_length: TrainLength | None = None
    scaling: Scaling | None = None
    support: Support | None = None
    problems: tuple[ModelWarning, ...] = ()


def _first_part(header: Header, *, parts: int) -> _Found:
    try:
        name = architecture_name(header)
    except GgufextError as error:
        return _Found(problems=(ModelWarning(error.code, str(error)),))
    support = architecture(name).support
    try:
        facts = model_facts(header)
    except PlanError as error:
        return _Found(name, support=support, problems=(ModelWarning(error.code, error.message),))
    except GgufextError as error:
        problem = ModelWarning(error.code, f"{error.field}: {error.message}")
        return _Found(name, support=support, problems=(problem,))
    # The first part of a split set may hold the metadata alone.
    unsaid = _SAID_ELSEWHERE | ({"no_tensors"} if parts > 1 else set())
    return _Found(
        name,
        TrainLength(facts.train_length, facts.train_length_source),
        facts.scaling,
        support,
        tuple(warning for warning in lint(header, facts) if warning.code not in unsaid),
    )


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
