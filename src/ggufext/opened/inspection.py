"""Everything that can be said of a model file without changing it."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ggufext.errors import EditError, GgufextError, ModelWarning, PlanError, command
from ggufext.header.architectures import architecture
from ggufext.header.facts import DEFAULT_SOURCE, TrainLength, architecture_name, model_facts
from ggufext.header.header import ValueType
from ggufext.header.layers import LayerInFile, layers_in_file
from ggufext.header.lint import lint
from ggufext.header.shards import COUNT_KEY
from ggufext.header.weights import TensorType, quantization, tensor_types
from ggufext.locating.names import is_remote, local_path
from ggufext.opened import guards
from ggufext.opened.model import OpenFile, open_model
from ggufext.opened.patch import PADDING_KEY
from ggufext.opened.strategies import likely_strategy
from ggufext.planning.cautions import unusual_base
from ggufext.planning.footprint import CacheType, KvCacheBytes, bytes_per_token

if TYPE_CHECKING:
    from pathlib import Path

    from ggufext.header.architectures import Layout, Support
    from ggufext.header.facts import EarlierExtension, ModelFacts
    from ggufext.header.header import Header
    from ggufext.header.published import Published
    from ggufext.locating.remote import RemoteModel
    from ggufext.opened.files import FileSystem
    from ggufext.opened.model import OpenModel
    from ggufext.opened.strategies import Strategy
    from ggufext.planning.evidence import Evidence


@dataclass(frozen=True, slots=True)
class ScalingInFile:
    """RoPE scaling as it takes effect.

    Attributes
    ----------
    type : str
        ``"none"``, ``"linear"``, ``"yarn"`` or ``"longrope"``.
    factor : float
        What positions are divided by, > 0; 1 where the file has none.
    original_context_length : int or None
        Tokens; None where the file has none.
    factor_tensors : tuple of str
        Names of the frequency-factor tensors in the file.
    attention_factor : float
        rope.scaling.attn_factor: what multiplies queries and keys beside YaRN's own factor.
    beta_fast, beta_slow : float
        See `ggufext.header.frequencies.Yarn`.
    """

    type: str
    factor: float
    original_context_length: int | None
    factor_tensors: tuple[str, ...]
    attention_factor: float
    beta_fast: float
    beta_slow: float


@dataclass(frozen=True, slots=True)
class RopeInFile:
    """Rotation as the file asks for it.

    Attributes
    ----------
    layout : Layout
    rotary_dim : int
        Rotated dimensions of a head.
    freq_base : float
        RoPE base θ, > 1.
    freq_base_source : str
        The key that it comes from, or that it is llama.cpp's default.
    scaling : ScalingInFile
    """

    layout: Layout
    rotary_dim: int
    freq_base: float
    freq_base_source: str
    scaling: ScalingInFile

    @property
    def base_is_default(self) -> bool:
        """Whether the file says no base, so that llama.cpp takes its own."""
        return self.freq_base_source == DEFAULT_SOURCE


@dataclass(frozen=True, slots=True)
class EditInFile:
    """Edits of ours that a file carries; undo takes all back, exactly while their record fits.

    Attributes
    ----------
    tool : str
        Program and version that made the last one.
    time : str
        When, in UTC, as ISO 8601.
    method : str or None
        Of the extension; None where keys were set and nothing was extended.
    target_length : int or None
        Context length that it made, tokens; None where nothing was extended.
    evidence : Evidence or None
        What was measured of the extension before it; None where nothing was.
    set_keys : tuple of str
        Keys that were set or deleted; an extension may have written over them since.
    """

    tool: str
    time: str
    method: str | None
    target_length: int | None
    evidence: Evidence | None
    set_keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Shard:
    """One file of a split model.

    Attributes
    ----------
    path : Path
        Where it lies.
    size : int
        Bytes.
    tensor_count : int
        Tensors in it.
    """

    path: Path
    size: int
    tensor_count: int


@dataclass(frozen=True, slots=True)
class Inspection:
    """What `inspect` found. Fields that need a language model with RoPE are None without one.

    Attributes
    ----------
    path : Path or str
        Where the file lies: of a split model the first part; the address of a remote file.
    architecture : str
        What general.architecture says.
    support : Support
    rope : RopeInFile or None
    layers : tuple of LayerInFile or None
    head_dim : int or None
        Elements of a query a head.
    alignment : int
        Multiple at which data begins, bytes.
    data_offset : int
        Where the tensors' data begins in the file at `path`, bytes.
    size : int
        Bytes of all files together.
    tensor_count : int
        Tensors of all files together.
    key_count : int
        Metadata keys in the file at `path`.
    train_length : TrainLength or None
        Context length that the file declares: of an extended file the target.
    kv_cache_bytes_per_token : KvCacheBytes or None
        What global layers hold in the KV cache, a token.
    quantization : str or None
        What general.file_type names, else the type of most bytes; None without tensors.
    tensor_types : tuple of TensorType
        That of most bytes first.
    likely_strategy : Strategy or None
        How the next edit would probably go; None for a remote file.
    shards : tuple of Shard
        The files of a split model, in order; empty for a model in one file.
    history : EditInFile or None
        An edit that undo takes back.
    earlier_extension : EarlierExtension or None
        By whatever tool; plans start from the model before it.
    published : Published or None
        What the model's publisher documents.
    warnings : tuple of ModelWarning
        What looks wrong.
    """

    path: Path | str
    architecture: str
    support: Support
    train_length: TrainLength | None
    rope: RopeInFile | None
    layers: tuple[LayerInFile, ...] | None
    head_dim: int | None
    alignment: int
    data_offset: int
    size: int
    tensor_count: int
    key_count: int
    quantization: str | None
    tensor_types: tuple[TensorType, ...]
    kv_cache_bytes_per_token: KvCacheBytes | None
    likely_strategy: Strategy | None
    shards: tuple[Shard, ...]
    history: EditInFile | None
    earlier_extension: EarlierExtension | None
    published: Published | None
    warnings: tuple[ModelWarning, ...]


def inspect(model: Path | str | RemoteModel, *, files: FileSystem | None = None) -> Inspection:
    """Read a model's header and say what it means; nothing is written.

    Parameters
    ----------
    model, files
        As for `ggufext.opened.model.open_model`.

    Raises
    ------
    HeaderError, LocationError
    """
    with open_model(model, files=files) as opened:
        return _inspected(opened)


def undo_command(path: Path | str) -> str | None:
    """The command that takes an edit back: into a new file, where the old one must not change.

    None for a name on another machine, whose tensors cannot be compared with the record.
    """
    if is_remote(path):
        return None
    try:
        guards.resolve(local_path(path), follow=True)
    except EditError:
        return command("undo", path, "--output", "original.gguf")
    return command("undo", path)


def _inspected(model: OpenModel) -> Inspection:
    header, later = model.header, model.later_shards
    shards = (header, *later)
    name = architecture_name(header)
    facts: ModelFacts | None = None
    warnings: tuple[ModelWarning, ...]
    try:
        facts = model_facts(header, later_shards=later)
        warnings = lint(header, facts, later_shards=later)
    except PlanError as error:
        warnings = (ModelWarning(error.code, error.message),)
    cache, before = None, None
    if facts is not None:
        if all(warning.code != "would_not_load" for warning in warnings):
            # Factor tensors that plan would refuse are no reason to say nothing of the header.
            with suppress(GgufextError):
                before = model.trained_facts()
        cache = KvCacheBytes(*(bytes_per_token(facts.layers, kind) for kind in CacheType))
    has_room = PADDING_KEY in header.keys
    return Inspection(
        path=model.path,
        architecture=name,
        support=architecture(name).support,
        train_length=TrainLength(facts.train_length, facts.train_length_source) if facts else None,
        rope=_rope(facts) if facts else None,
        layers=layers_in_file(facts.layers, facts.rotary_dim) if facts else None,
        head_dim=facts.head_dim if facts else None,
        alignment=header.alignment,
        data_offset=header.data_offset,
        size=sum(part.file_size for part in shards),
        tensor_count=sum(part.tensor_count for part in shards),
        key_count=header.key_count,
        quantization=quantization(*shards),
        tensor_types=tensor_types(*shards),
        kv_cache_bytes_per_token=cache,
        likely_strategy=likely_strategy(model.path, has_room=has_room)
        if isinstance(model, OpenFile)
        else None,
        shards=_shards(shards) if later else (),
        history=_edit(model),
        earlier_extension=before.earlier_extension if before else None,
        published=before.published if before else None,
        warnings=(*warnings, *_complaints(model), *_unread_parts(model), *_hints(before)),
    )


def _hints(before: ModelFacts | None) -> tuple[ModelWarning, ...]:
    if before is None or before.earlier_extension is not None:
        return ()
    return unusual_base(before)


def _shards(headers: tuple[Header, ...]) -> tuple[Shard, ...]:
    return tuple(
        Shard(part.path, part.file_size, part.tensor_count) for part in headers if part.path
    )


def _rope(facts: ModelFacts) -> RopeInFile:
    scaling = facts.scaling
    return RopeInFile(
        layout=facts.layout,
        rotary_dim=facts.rotary_dim,
        freq_base=facts.freq_base,
        freq_base_source=facts.freq_base_source,
        scaling=ScalingInFile(
            type=scaling.type,
            factor=scaling.factor,
            original_context_length=scaling.original_context_length,
            factor_tensors=scaling.factor_tensors,
            attention_factor=scaling.attention_factor,
            beta_fast=scaling.yarn.beta_fast,
            beta_slow=scaling.yarn.beta_slow,
        ),
    )


def _unread_parts(model: OpenModel) -> tuple[ModelWarning, ...]:
    count = model.header.integer(COUNT_KEY, value_type=ValueType.UINT16) or 0
    if count < 2 or model.later_shards:
        return ()
    what = f"the first of {count} parts; the tensors and sizes of the others are not counted"
    return (ModelWarning("parts_not_read", what),)


def _complaints(model: OpenModel) -> tuple[ModelWarning, ...]:
    error = model.complaint
    return (ModelWarning(error.code, error.message),) if error else ()


def _edit(model: OpenModel) -> EditInFile | None:
    record = model.history
    if record is None:
        return None
    return EditInFile(
        tool=record.tool,
        time=record.time,
        method=record.method,
        target_length=record.target_length,
        evidence=record.evidence,
        set_keys=tuple(sorted(model.set_entries)),
    )
