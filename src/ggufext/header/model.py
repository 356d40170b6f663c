"""Facts about the model in a GGUF file, as llama.cpp would take them from its header."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from ggufext.errors import HeaderError, PlanError, printable
from ggufext.header.architectures import (
    FactorSupport,
    Layout,
    Positions,
    Support,
    architecture,
)
from ggufext.header.factors import factor_tensors
from ggufext.header.header import ValueType

if TYPE_CHECKING:
    from ggufext.header.architectures import Architecture
    from ggufext.header.header import Header, Value

#: llama.cpp's rope.freq_base for files that do not say (llama-model.cpp).
DEFAULT_FREQ_BASE = 10_000.0

#: Values of general.type that are no language model, and what to say of them.
_NOT_A_MODEL = {
    "adapter": "a LoRA adapter; extend the model it belongs to",
    "imatrix": "an importance matrix for quantization",
    "mmproj": "a multimodal projector; extend the language model beside it",
    "vocab": "a vocabulary",
}

#: Keys that only such files have, where they are too old to have general.type or have it not.
_KEYS_OF_OTHERS = {
    "adapter.type": _NOT_A_MODEL["adapter"],
    "imatrix.chunk_count": _NOT_A_MODEL["imatrix"],
    "controlvector.model_hint": "a control vector; extend the model it steers",
    "controlvector.layer_count": "a control vector; extend the model it steers",
}

#: Largest rotary_dim and head size taken for real.
_LARGEST_DIMENSION = 65_536

#: llama.cpp holds no more layers (LLAMA_MAX_LAYERS, llama-hparams.h).
_MOST_LAYERS = 512


@dataclass(frozen=True, slots=True)
class TrainLength:
    """Training length T in tokens, and the key or option it came from."""

    value: int
    source: str


@dataclass(frozen=True, slots=True)
class Scaling:
    """RoPE scaling that a file carries, as it takes effect in llama.cpp.

    Attributes
    ----------
    type : str
        ``"none"``, ``"linear"``, ``"yarn"`` or ``"longrope"``.
    factor : float
        1 where the file has none.
    original_context_length : int or None
        Tokens; None where the file has none.
    attention_factor : float
        rope.scaling.attn_factor; 1 where the file has none.
    factor_tensors : tuple of str
        Names of the frequency-factor tensors in the file.
    """

    type: str
    factor: float
    original_context_length: int | None
    attention_factor: float
    factor_tensors: tuple[str, ...]

    @property
    def in_effect(self) -> bool:
        """Whether it changes the rotation at all: the effect counts, not the presence of keys."""
        scaled = self.type != "none" and self.factor != 1.0
        return scaled or self.attention_factor != 1.0 or bool(self.factor_tensors)


@dataclass(frozen=True, slots=True)
class LayerFacts:
    """One layer's part in positions and in the KV cache.

    Attributes
    ----------
    window : int or None
        Tokens that a sliding-window (local) layer sees; None for a global layer.
    freq_base : float
        RoPE base that this layer rotates with.
    moves : bool
        Whether a new rope.freq_base or scaling reaches this layer.
    head_count_kv, key_length, value_length : int
        KV heads, and elements per head of a key and of a value.
    """

    window: int | None
    freq_base: float
    moves: bool
    head_count_kv: int
    key_length: int
    value_length: int


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What planning needs to know of a model. Pure values; nothing refers to the file.

    Attributes
    ----------
    architecture : str
    support : Support
        How well the architecture is known.
    layout : Layout
    train_length : int
        Training length T in tokens.
    train_length_source : str
        The metadata key it came from, or ``"--train-length"``.
    freq_base : float
        Native RoPE base θ of the layers that an extension moves.
    rotary_dim : int
        Rotated dimensions per head, even.
    head_dim : int
        Elements per head of a query.
    inv_freq : tuple of float
        Native inverse frequencies without scaling, radians per token, rotary_dim / 2 values.
    scaling : Scaling
        Native scaling of the file.
    has_scaling_factor : bool
        Whether the file has a rope.scaling.factor or rope.scale_linear key.
    layers : tuple of LayerFacts
    metadata : tuple of (str, Value or None)
        The keys that a plan may edit, with today's values (None: absent). Empty for facts that
        do not come from a GGUF file.
    factors : tuple of (str, tuple of float)
        Values of the file's frequency-factor tensors by name; empty where nobody read them.
    factor_support : FactorSupport
        Which of these tensors llama.cpp takes for the architecture.
    """

    architecture: str
    support: Support
    layout: Layout
    train_length: int
    train_length_source: str
    freq_base: float
    rotary_dim: int
    head_dim: int
    inv_freq: tuple[float, ...]
    scaling: Scaling
    has_scaling_factor: bool
    layers: tuple[LayerFacts, ...]
    metadata: tuple[tuple[str, Value | None], ...]
    factors: tuple[tuple[str, tuple[float, ...]], ...] = ()
    factor_support: FactorSupport = FactorSupport.NONE


class _Reader:
    """Checked values of one architecture's keys."""

    def __init__(self, header: Header, prefix: str) -> None:
        self.header = header
        self.prefix = prefix

    def nonsense(self, suffix: str, expected: str) -> NoReturn:
        key = self.prefix + suffix
        raise HeaderError(
            code="nonsense_value",
            field=key,
            offset=self.header.keys[key].start,
            path=self.header.path,
            message=f"is {printable(repr(self.header.value(key)), 80)}; expected {expected}; "
            "convert the model again, or correct the key with gguf-set-metadata",
        )

    def count(self, suffix: str, *, at_least: int = 1) -> int | None:
        value = self.header.integer(self.prefix + suffix)
        if value is not None and value < at_least:
            self.nonsense(suffix, f"{at_least} or more")
        return value

    def required(self, suffix: str) -> int:
        value = self.count(suffix)
        if value is None:
            self.missing(suffix)
        return value

    def missing(self, suffix: str) -> NoReturn:
        raise HeaderError(
            code="missing_key",
            field=self.prefix + suffix,
            path=self.header.path,
            message="is not in the file; llama.cpp needs it; convert the model again",
        )

    def positive(self, suffix: str, *, above: float = 0.0) -> float | None:
        value = self.header.number(self.prefix + suffix)
        if value is not None and not (math.isfinite(value) and value > above):
            self.nonsense(suffix, f"a finite number above {above:g}")
        return value

    def factor(self, suffix: str) -> float | None:
        value = self.header.number(self.prefix + suffix)
        if value is not None and not (math.isfinite(value) and value >= 0.0):
            self.nonsense(suffix, "a finite number, 0 or more")
        return value

    def per_layer(self, suffix: str, layers: int) -> tuple[int, ...] | None:
        """One number a layer, from an array or from one number for all."""
        entry = self.header.keys.get(self.prefix + suffix)
        if entry is None or entry.type is not ValueType.ARRAY:
            value = self.count(suffix, at_least=0)
            return None if value is None else (value,) * layers
        values = self.header.array(entry.key, ValueType.INT32, ValueType.UINT32) or ()
        numbers = tuple(int(v) for v in values[:layers])
        if len(numbers) < layers or min(numbers) < 0:
            self.nonsense(suffix, f"{layers} whole numbers, one a layer")
        return numbers


def model_facts(
    header: Header,
    *,
    train_length: int | None = None,
    later_shards: tuple[Header, ...] = (),
    factors: tuple[tuple[str, tuple[float, ...]], ...] = (),
) -> ModelFacts:
    """Facts of the model that a header describes.

    Parameters
    ----------
    header : Header
        The header as converted, without an extension of ours.
    train_length : int, optional
        The real training length in tokens, where context_length is known to say something else.
    later_shards : tuple of Header
        Of a split model's other parts (`ggufext.header.shards.later_shards`), which hold tensors.
    factors : tuple of (str, tuple of float)
        Values of the frequency-factor tensors (`header.factors.read_factors`); a plan for a file
        that has such tensors needs them.

    Raises
    ------
    HeaderError
        A key that is needed is missing, of another type, or holds nonsense.
    PlanError
        ``not_a_language_model``, ``no_rope`` or ``learned_positions``: nothing to extend.
    """
    name = architecture_name(header)
    entry = architecture(name)
    _refuse_what_cannot_be_extended(header, entry)

    read = _Reader(header, f"{name}.")
    context_length = read.required("context_length")
    layer_count = read.required("block_count")
    if layer_count > _MOST_LAYERS:
        read.nonsense("block_count", f"at most {_MOST_LAYERS} layers, as in llama.cpp")
    embedding = read.required("embedding_length")
    heads = read.per_layer("attention.head_count", layer_count)
    if heads is None:
        read.missing("attention.head_count")
    if max(heads) == 0:
        read.nonsense("attention.head_count", "at least one head")
    default_head_dim = embedding // max(heads)
    if default_head_dim == 0:
        read.nonsense("attention.head_count", f"at most embedding_length, which is {embedding}")
    head_dim = read.count("attention.key_length") or default_head_dim
    value_dim = read.count("attention.value_length") or default_head_dim
    rotary_dim = read.count("rope.dimension_count") or head_dim
    if rotary_dim % 2 or not 2 <= rotary_dim <= min(head_dim, _LARGEST_DIMENSION):
        sources = ("rope.dimension_count", "attention.key_length", "embedding_length")
        source = next(suffix for suffix in sources if f"{name}.{suffix}" in header.keys)
        most = min(head_dim, _LARGEST_DIMENSION)
        read.nonsense(source, f"an even number of rotated dimensions, at most {most} a head")
    freq_base = read.positive("rope.freq_base", above=1.0) or DEFAULT_FREQ_BASE

    heads_kv = read.per_layer("attention.head_count_kv", layer_count) or heads
    if max(heads_kv) > max(heads):
        read.nonsense("attention.head_count_kv", f"at most the {max(heads)} heads of queries")
    layers = _layers(
        read,
        entry,
        freq_base=freq_base,
        heads_kv=heads_kv,
        key_length=head_dim,
        value_length=value_dim,
    )
    scaling = _scaling(read, (header, *later_shards))
    return ModelFacts(
        architecture=name,
        support=entry.support,
        layout=entry.layout,
        train_length=train_length or context_length,
        train_length_source="--train-length" if train_length else f"{name}.context_length",
        freq_base=freq_base,
        rotary_dim=rotary_dim,
        head_dim=head_dim,
        inv_freq=tuple(freq_base ** (-2.0 * i / rotary_dim) for i in range(rotary_dim // 2)),
        scaling=scaling,
        has_scaling_factor=any(
            f"{name}.{key}" in header.keys for key in ("rope.scaling.factor", "rope.scale_linear")
        ),
        layers=layers,
        metadata=tuple(
            (
                f"{name}.{key}",
                header.value(f"{name}.{key}") if f"{name}.{key}" in header.keys else None,
            )
            for key in (
                "context_length",
                "rope.freq_base",
                "rope.scaling.type",
                "rope.scaling.factor",
                "rope.scaling.original_context_length",
                "rope.scaling.attn_factor",
            )
        ),
        factors=factors,
        factor_support=entry.factor_support,
    )


def architecture_name(header: Header) -> str:
    """Value of general.architecture.

    Raises
    ------
    HeaderError
        ``missing_key`` or ``wrong_type``.
    PlanError
        ``not_a_language_model`` for files that have none because they hold no model.
    """
    key = "general.architecture"
    name = header.string(key)
    if not name:
        _refuse_other_files(header)
        raise HeaderError(
            code="missing_key",
            field=key,
            path=header.path,
            message="is not in the file, so nothing says how its tensors form a model",
        )
    return name


def quantization(*shards: Header) -> str | None:
    """The tensor type that holds most of a model's weights, ``"Q4_K"`` for example.

    Parameters
    ----------
    *shards : Header
        Of every file of the model.
    """
    sizes: dict[str, int] = {}
    for tensor in (tensor for shard in shards for tensor in shard.tensors):
        sizes[tensor.type] = sizes.get(tensor.type, 0) + tensor.size
    return max(sizes, key=lambda name: sizes[name]) if sizes else None


def _refuse_other_files(header: Header) -> None:
    found = _NOT_A_MODEL.get(header.string("general.type") or "")
    field = "general.type"
    if found is None:
        field = next((key for key in _KEYS_OF_OTHERS if key in header.keys), "")
        found = _KEYS_OF_OTHERS.get(field)
    if found is not None:
        raise PlanError(
            code="not_a_language_model",
            field=field,
            path=header.path,
            message=f"this file is {found}",
        )


def _refuse_what_cannot_be_extended(header: Header, entry: Architecture) -> None:
    def refuse(code: str, message: str) -> NoReturn:
        raise PlanError(code=code, field="general.architecture", path=header.path, message=message)

    _refuse_other_files(header)
    if entry.kind == "draft":
        refuse(
            "not_a_language_model",
            f"{entry.name} is a draft head; it is extended together with its target model",
        )
    if entry.kind != "language_model":
        kind = entry.kind.replace("_", "-")
        refuse(
            "not_a_language_model",
            f"{entry.name} is an architecture of {kind} models; this program extends models that "
            "continue a text, and could not judge others",
        )
    if entry.positions is Positions.LEARNED:
        refuse(
            "learned_positions",
            f"{entry.name} has a learned table of positions, one row a token; raising "
            "context_length would make the file unloadable",
        )
    if entry.positions is Positions.NONE:
        refuse("no_rope", f"{entry.name} does not rotate queries and keys: nothing to extend")


def _scaling(read: _Reader, shards: tuple[Header, ...]) -> Scaling:
    kind = read.header.string(f"{read.prefix}rope.scaling.type")
    if kind is not None and kind not in {"none", "linear", "yarn", "longrope"}:
        read.nonsense("rope.scaling.type", "none, linear, yarn or longrope")
    factor = read.factor("rope.scaling.factor")
    if factor is None:
        factor = read.factor("rope.scale_linear")
    names = [tensor.name for shard in shards for tensor in factor_tensors(shard)]
    return Scaling(
        # llama.cpp takes an absent type for linear and an absent or zero factor for 1.
        type="linear" if kind is None else kind,
        factor=factor or 1.0,
        original_context_length=read.count("rope.scaling.original_context_length", at_least=0),
        attention_factor=read.positive("rope.scaling.attn_factor") or 1.0,
        factor_tensors=tuple(names),
    )


def _layers(
    read: _Reader,
    entry: Architecture,
    *,
    freq_base: float,
    heads_kv: tuple[int, ...],
    key_length: int,
    value_length: int,
) -> tuple[LayerFacts, ...]:
    window = read.count("attention.sliding_window", at_least=0) if entry.local_pattern else None
    local: tuple[bool, ...] = (False,) * len(heads_kv)
    if window and entry.local_pattern:
        local = _local_layers(read, entry.local_pattern, len(heads_kv))
    # The file's own base of local layers; where it has none, the architecture's.
    local_base = read.positive("rope.freq_base_swa", above=1.0) if window else None
    return tuple(
        LayerFacts(
            window=window if is_local else None,
            freq_base=(local_base or entry.local_freq_base or freq_base) if is_local else freq_base,
            moves=not is_local,
            head_count_kv=kv,
            key_length=key_length,
            value_length=value_length,
        )
        for is_local, kv in zip(local, heads_kv, strict=True)
    )


def _local_layers(read: _Reader, default_pattern: int, layer_count: int) -> tuple[bool, ...]:
    suffix = "attention.sliding_window_pattern"
    entry = read.header.keys.get(read.prefix + suffix)
    if entry is not None and entry.type is ValueType.ARRAY:
        flags = read.header.array(entry.key, ValueType.BOOL, ValueType.INT32, ValueType.UINT32)
        given = tuple(bool(is_local) for is_local in flags or ())[:layer_count]
        # llama.cpp takes layers that a short array does not reach for global ones.
        return given + (False,) * (layer_count - len(given))
    period = read.count(suffix, at_least=0)
    if period is None:
        period = default_pattern
    # A period of 0 means that every layer is local (llama_hparams::set_swa_pattern).
    return tuple(period == 0 or i % period < period - 1 for i in range(layer_count))
