"""Everything that can be said of a model file without changing it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ggufext.editing import history, strategies
from ggufext.editing.files import FileSystem
from ggufext.editing.opening import open_model
from ggufext.errors import GgufextError, JournalError, ModelWarning, PlanError
from ggufext.header.architectures import architecture
from ggufext.header.identity import facts_hash
from ggufext.header.lint import lint
from ggufext.header.model import TrainLength, architecture_name, quantization
from ggufext.planning.kv_cache import CacheType, KvCacheBytes, bytes_per_token
from ggufext.planning.recipe import check_model

if TYPE_CHECKING:
    from ggufext.editing.opening import OpenModel
    from ggufext.header.architectures import Layout, Support
    from ggufext.header.model import ModelFacts
    from ggufext.planning.recipe import Recipe


@dataclass(frozen=True, slots=True)
class ScalingInFile:
    """RoPE scaling as it takes effect: type, factor, original length in tokens, factor tensors."""

    type: str
    factor: float
    original_context_length: int | None
    factor_tensors: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RopeInFile:
    """Rotation as the file asks for it."""

    layout: Layout
    rotary_dim: int
    freq_base: float
    scaling: ScalingInFile


@dataclass(frozen=True, slots=True)
class EditInFile:
    """An edit of ours that the file carries; undo is exact while it fits the file."""

    tool: str
    time: str
    method: str
    target_length: int


@dataclass(frozen=True, slots=True)
class Inspection:
    """What `inspect` found. Fields that need a language model with RoPE are None without one.

    Attributes
    ----------
    train_length : TrainLength or None
        Context length that the file declares: of an extended file the target.
    kv_cache_bytes_per_token : KvCacheBytes or None
        What global layers hold, per token.
    history : EditInFile or None
    warnings : tuple of ModelWarning
    """

    path: Path
    architecture: str
    support: Support
    train_length: TrainLength | None
    rope: RopeInFile | None
    head_dim: int | None
    alignment: int
    data_offset: int
    size: int
    tensor_count: int
    key_count: int
    quantization: str | None
    kv_cache_bytes_per_token: KvCacheBytes | None
    likely_strategy: strategies.Strategy
    history: EditInFile | None
    warnings: tuple[ModelWarning, ...]


def inspect(path: Path | str, *, files: FileSystem | None = None) -> Inspection:
    """Read a model file's header and say what it means; nothing is written.

    Parameters
    ----------
    path : Path or str
    files : FileSystem, optional
        The operations to use; for tests.

    Raises
    ------
    HeaderError
    """
    files = files or FileSystem()
    path = Path(path)
    with open_model(files, path, writing=False) as model:
        return _inspected(files, path, model)


def facts_of(
    path: Path | str,
    *,
    train_length: int | None = None,
    recipe: Recipe | None = None,
    files: FileSystem | None = None,
) -> ModelFacts:
    """Facts that a plan for a file starts from: those of the original, before edits of ours.

    Parameters
    ----------
    path : Path or str
    train_length : int, optional
        The real training length in tokens, where the file says something else.
    recipe : Recipe, optional
        Must have been made for this model.

    Raises
    ------
    HeaderError, PlanError
        See `ggufext.header.model.model_facts`; ``other_model``.
    """
    with open_model(files or FileSystem(), Path(path), writing=False) as model:
        facts = model.original_facts(train_length=train_length)
        if recipe is not None:
            check_model(recipe, facts_hash(model.original, facts))
        return facts


def _inspected(files: FileSystem, path: Path, model: OpenModel) -> Inspection:
    header = model.header
    name = architecture_name(header)
    facts: ModelFacts | None = None
    warnings: tuple[ModelWarning, ...]
    try:
        facts = model.facts()
        warnings = lint(header, facts)
    except PlanError as error:
        warnings = (ModelWarning(error.code, error.message),)
    record, complaint = _record(files, model)
    cache = None
    if facts is not None:
        cache = KvCacheBytes(*(bytes_per_token(facts.layers, kind) for kind in CacheType))
    return Inspection(
        path=path,
        architecture=name,
        support=architecture(name).support,
        train_length=TrainLength(facts.train_length, facts.train_length_source) if facts else None,
        rope=_rope(facts) if facts else None,
        head_dim=facts.head_dim if facts else None,
        alignment=header.alignment,
        data_offset=header.data_offset,
        size=header.file_size,
        tensor_count=header.tensor_count,
        key_count=header.key_count,
        quantization=quantization(header),
        kv_cache_bytes_per_token=cache,
        likely_strategy=strategies.likely_strategy(path),
        history=record,
        warnings=(*warnings, *complaint),
    )


def _rope(facts: ModelFacts) -> RopeInFile:
    scaling = facts.scaling
    return RopeInFile(
        layout=facts.layout,
        rotary_dim=facts.rotary_dim,
        freq_base=facts.freq_base,
        scaling=ScalingInFile(
            type=scaling.type,
            factor=scaling.factor,
            original_context_length=scaling.original_context_length,
            factor_tensors=scaling.factor_tensors,
        ),
    )


def _record(
    files: FileSystem, model: OpenModel
) -> tuple[EditInFile | None, tuple[ModelWarning, ...]]:
    """The edit that can be undone, and what is wrong with one that cannot."""
    record = model.history
    if record is not None:
        edit = EditInFile(record.tool, record.time, record.method, record.target_length)
        return edit, ()
    try:
        found = history.in_file(model.header) or history.beside(files, model.path)
        if found is not None:
            history.undo_patch(model.header, model.header_bytes, found, model.read)
    except JournalError as error:
        return None, (ModelWarning(error.code, error.message),)
    except GgufextError as error:
        return None, (ModelWarning("history_mismatch", error.message),)
    return None, ()
