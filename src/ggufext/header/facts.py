"""Facts about the model in a GGUF file, as llama.cpp would take them from its header."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, NoReturn

from ggufext.errors import HeaderError, PlanError
from ggufext.header import rope_keys
from ggufext.header.architectures import (
    FactorSupport,
    Layout,
    Positions,
    Support,
    architecture,
)
from ggufext.header.frequencies import USUAL_YARN, factor_tensors, inverse_frequencies
from ggufext.header.layers import HeadSizes, LayerFacts, layer_facts
from ggufext.header.rope_keys import KeyReader, yarn_of

if TYPE_CHECKING:
    from ggufext.header.architectures import Architecture
    from ggufext.header.frequencies import Yarn
    from ggufext.header.header import Header, Value
    from ggufext.header.published import Published


#: llama.cpp's rope.freq_base for files that do not say (llama-model.cpp).
DEFAULT_FREQ_BASE = 10_000.0

#: Where it comes from then.
DEFAULT_SOURCE = "llama.cpp's default, the file says none"

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

#: Largest product of rope.scaling.alpha taken for real; llama.cpp computes with 32-bit floats.
_LARGEST_ALPHA_MULTIPLIER = 1e15

#: llama.cpp holds no more layers (LLAMA_MAX_LAYERS, llama-hparams.h).
MOST_LAYERS = 512


@dataclass(frozen=True, slots=True)
class TrainLength:
    """Training length T in tokens, and the key or option it came from.

    Attributes
    ----------
    value : int
        Tokens.
    source : str
        The metadata key, option or page that it comes from.
    """

    value: int
    source: str


@dataclass(frozen=True, slots=True)
class EarlierExtension:
    """An extension that a file carries already: what a plan must not start from.

    Its record tells, or else rope.scaling.original_context_length below context_length.

    Attributes
    ----------
    train_length : int
        Context length before it, tokens.
    target_length : int
        Context length that it made, tokens.
    method : str or None
        As its record says; None without one.
    freq_base_known : bool
        Whether the base before it is known.
    """

    train_length: int
    target_length: int
    method: str | None
    freq_base_known: bool


@dataclass(frozen=True, slots=True)
class Scaling:
    """RoPE scaling that a file carries, as it takes effect in llama.cpp.

    Attributes
    ----------
    type : str
        ``"none"``, ``"linear"``, ``"yarn"`` or ``"longrope"``.
    factor : float
        What positions are divided by, > 0; 1 where the file has none.
    original_context_length : int or None
        Tokens; None where the file has none.
    attention_factor : float
        What multiplies queries and keys (rope.scaling.attn_factor); 1 where the file has none.
    factor_tensors : tuple of str
        Names of the frequency-factor tensors in the file.
    yarn : Yarn
        How frequencies and attention are scaled by that factor.
    """

    type: str
    factor: float
    original_context_length: int | None
    attention_factor: float
    factor_tensors: tuple[str, ...]
    yarn: Yarn = USUAL_YARN

    @property
    def factor_in_effect(self) -> float:
        """What llama.cpp divides positions by: type none switches the factor off."""
        return 1.0 if self.type == "none" else self.factor

    @property
    def mix(self) -> float:
        """How much of YaRN's mix takes place, 0 for none of it."""
        return self.yarn.mix(self.type)

    @property
    def in_effect(self) -> bool:
        """Whether it changes the rotation at all: the effect counts, not the presence of keys."""
        scaled = self.factor_in_effect != 1.0
        return scaled or self.attention_factor != 1.0 or bool(self.factor_tensors)

    @property
    def spreads_positions(self) -> bool:
        """Whether positions are multiplied, by a factor below 1, where scaling divides them."""
        return self.type != "none" and self.factor < 1.0

    @property
    def spread(self) -> str:
        """A sentence on that."""
        meant = f"{1.0 / self.factor:g}"
        return (
            f"rope.scaling.factor is {self.factor:g}: llama.cpp multiplies positions by {meant}; "
            f"probably a frequency scale was written as a factor, and {meant} was meant"
        )


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
    context_length : int
        What the file declares, tokens.
    freq_base : float
        Native RoPE base θ of the layers that an extension moves.
    rotary_dim : int
        Rotated dimensions per head, even.
    head_dim : int
        Elements per head of a query.
    scaling : Scaling
        Native scaling of the file.
    has_scaling_factor : bool
        Whether the file has a rope.scaling.factor or rope.scale_linear key.
    layers : tuple of LayerFacts
    metadata : tuple of (str, Value or None)
        The keys that a plan may edit, with today's values (None: absent). Empty for facts that
        do not come from a GGUF file.
    freq_base_multiplier : float
        What llama.cpp multiplies rope.freq_base by: `freq_base` is the product.
    scales_attention : bool
        Linear and yarn scaling multiply all scores of attention (MLA).
    factors : tuple of (str, tuple of float)
        Values of the file's frequency-factor tensors by name; empty where nobody read them.
    factor_support : FactorSupport
        Which of these tensors llama.cpp takes for the architecture.
    temperature_scale : float
        attention.temperature_scale: how much queries grow with the logarithm of their position; 0:
        not at all.
    original_length_acts : bool
        Whether that growth is counted from rope.scaling.original_context_length, whatever the
        scaling.
    left_over : tuple of (str, tuple of float)
        Factor tensors that an earlier extension added and that stay in the file: no part of the
        model.
    earlier_extension : EarlierExtension or None
        These facts are those before it.
    published : Published or None
        What the model's publisher documents.
    freq_base_source : str
        The metadata key that `freq_base` came from, or `DEFAULT_SOURCE`.
    reads_betas : bool
        Whether YaRN's betas can be said by keys.
    has_tensors : bool
        Whether there are tensors; of a vocabulary nobody judges whether llama.cpp loads it.
    """

    architecture: str
    support: Support
    layout: Layout
    train_length: int
    train_length_source: str
    context_length: int
    freq_base: float
    rotary_dim: int
    head_dim: int
    scaling: Scaling
    has_scaling_factor: bool
    layers: tuple[LayerFacts, ...]
    metadata: tuple[tuple[str, Value | None], ...]
    freq_base_multiplier: float = 1.0
    scales_attention: bool = False
    factors: tuple[tuple[str, tuple[float, ...]], ...] = ()
    factor_support: FactorSupport = FactorSupport.NONE
    temperature_scale: float = 0.0
    original_length_acts: bool = False
    left_over: tuple[tuple[str, tuple[float, ...]], ...] = ()
    earlier_extension: EarlierExtension | None = None
    published: Published | None = None
    freq_base_source: str = "rope_theta"
    reads_betas: bool = True
    has_tensors: bool = True

    @property
    def inv_freq(self) -> tuple[float, ...]:
        """Native inverse frequencies without scaling, radians per token, one a rotated pair."""
        return inverse_frequencies(self.freq_base, self.rotary_dim)

    @property
    def train_length_is_the_files(self) -> bool:
        """Whether the file says the training length, not somebody who knows better."""
        return self.train_length_source.startswith(f"{self.architecture}.")

    @property
    def longest_short_context(self) -> int:
        """Tokens above which llama.cpp rotates with the long factors; 0: in every context."""
        original = self.scaling.original_context_length
        return self.context_length if original is None else original

    @property
    def yarn_length(self) -> int:
        """Tokens that llama.cpp starts YaRN from in the file as it is."""
        return self.scaling.original_context_length or self.context_length


def model_facts(
    header: Header,
    *,
    train_length: int | None = None,
    train_freq_base: float | None = None,
    later_shards: tuple[Header, ...] = (),
    factors: tuple[tuple[str, tuple[float, ...]], ...] = (),
) -> ModelFacts:
    """Facts of the model that a header describes, taken at its word.

    `ggufext.header.training.trained_facts` gives those that a plan starts from.

    Parameters
    ----------
    header : Header
        The header as converted, without an extension of ours.
    train_length : int, optional
        The real training length in tokens, where context_length is known to say something else.
    train_freq_base : float, optional
        What rope.freq_base was in training, > 1, where the file is known to say something else.
    later_shards : tuple of Header
        Of a split model's other parts (`ggufext.header.shards.later_shards`), which hold tensors.
    factors : tuple of (str, tuple of float)
        Values of the frequency-factor tensors (`header.frequencies.read_factors`); a plan for a
        file that has such tensors needs them.

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

    read = KeyReader(header, f"{name}.")
    context_length = read.required("context_length")
    # Layers that only predict further tokens (MTP) are no part of the usual graph.
    layer_count = read.required("block_count")
    if layer_count > MOST_LAYERS:
        read.nonsense("block_count", f"at most {MOST_LAYERS} layers, as in llama.cpp")
    further = read.count("nextn_predict_layers", at_least=0) or 0
    if further >= layer_count:
        read.nonsense("nextn_predict_layers", f"fewer than the {layer_count} layers of the model")
    layer_count -= further
    embedding = read.required("embedding_length")
    heads = read.per_layer(rope_keys.HEAD_COUNT, layer_count)
    if heads is None:
        read.missing(rope_keys.HEAD_COUNT)
    if max(heads) == 0:
        read.nonsense(rope_keys.HEAD_COUNT, "at least one head")
    _refuse_without_rotation(read, entry, layer_count)
    if max(heads) > embedding:
        read.nonsense(rope_keys.HEAD_COUNT, f"at most embedding_length, which is {embedding}")
    sizes = _head_sizes(read, default=embedding // max(heads))
    multiplier = _freq_base_multiplier(read, entry, sizes.key)
    written_base = read.positive(rope_keys.FREQ_BASE, above=1.0)
    freq_base = multiplier * (train_freq_base or written_base or DEFAULT_FREQ_BASE)
    heads_kv = read.per_layer(rope_keys.HEAD_COUNT_KV, layer_count) or heads
    if max(heads_kv) > max(heads):
        read.nonsense(rope_keys.HEAD_COUNT_KV, f"at most the {max(heads)} heads of queries")
    layers = layer_facts(
        read,
        entry,
        freq_base=freq_base,
        heads_kv=heads_kv,
        sizes=sizes,
    )
    # That of the layers that an extension moves; where it moves none, of any that rotates.
    rotating = [layer for layer in layers if layer.moves] or [
        layer for layer in layers if layer.rotates
    ]
    rotary_dim = (rotating[0].rotary_dim if rotating else None) or sizes.rotary
    scaling = _scaling(read, entry, (header, *later_shards))
    warms = rope_keys.TEMPERATURE_SCALE in entry.reads
    temperature = read.finite(rope_keys.TEMPERATURE_SCALE) if warms else None
    return ModelFacts(
        architecture=name,
        support=entry.support,
        layout=_layout(read, entry),
        train_length=train_length or context_length,
        train_length_source="--train-length" if train_length else f"{name}.context_length",
        context_length=context_length,
        freq_base=freq_base,
        rotary_dim=rotary_dim,
        head_dim=read.count(rope_keys.KEY_LENGTH_MLA) or sizes.key,
        scaling=scaling,
        has_scaling_factor=any(
            f"{name}.{key}" in header.keys
            for key in (rope_keys.SCALING_FACTOR, rope_keys.SCALE_LINEAR)
        ),
        layers=layers,
        metadata=tuple(
            (
                f"{name}.{key}",
                header.value(f"{name}.{key}") if f"{name}.{key}" in header.keys else None,
            )
            for key in rope_keys.EDITED
        ),
        freq_base_multiplier=multiplier,
        scales_attention=entry.scales_attention,
        factors=factors,
        factor_support=entry.factor_support,
        temperature_scale=temperature or 0.0,
        original_length_acts=bool(temperature) and rope_keys.TEMPERATURE_LENGTH not in entry.reads,
        freq_base_source=(
            "--train-freq-base"
            if train_freq_base
            else f"{name}.{rope_keys.FREQ_BASE}"
            if written_base
            else DEFAULT_SOURCE
        ),
        reads_betas=rope_keys.YARN_BETA_FAST in entry.reads,
        has_tensors=any(shard.tensor_count for shard in (header, *later_shards)),
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


def _refuse_without_rotation(read: KeyReader, entry: Architecture, layer_count: int) -> None:
    """Refuse models that do not rotate although others of their architecture do."""

    def refuse(code: str, field: str, message: str) -> NoReturn:
        raise PlanError(
            code=code, field=read.prefix + field, path=read.header.path, message=message
        )

    only = entry.rotates_with_block_count
    if only is not None and layer_count != only:
        refuse(
            "no_rope",
            "block_count",
            f"llama.cpp rotates {entry.name} models with {only} layers only; this one has "
            f"{layer_count}: nothing to extend",
        )
    switch = rope_keys.SCALING_FINETUNED
    if entry.rope_switch and read.header.boolean(read.prefix + switch) is False:
        refuse(
            "no_rope",
            switch,
            f"is false, which switches the rotation of {entry.name} off: nothing to extend",
        )
    if not entry.reads_rope_keys:
        refuse(
            "rope_keys_not_read",
            rope_keys.FREQ_BASE,
            f"llama.cpp rotates {entry.name} with base 10,000 and no scaling, whatever the file "
            "says; only context_length could be raised (gguf-set-metadata does)",
        )


def _head_sizes(read: KeyReader, *, default: int) -> HeadSizes:
    key = read.count(rope_keys.KEY_LENGTH) or default
    rotary = read.count(rope_keys.DIMENSION_COUNT) or key
    if rotary % 2 or not 2 <= rotary <= min(key, _LARGEST_DIMENSION):
        sources = (rope_keys.DIMENSION_COUNT, rope_keys.KEY_LENGTH, "embedding_length")
        source = next(suffix for suffix in sources if read.prefix + suffix in read.header.keys)
        most = min(key, _LARGEST_DIMENSION)
        read.nonsense(source, f"an even number of rotated dimensions, at most {most} a head")
    return HeadSizes(key, read.count(rope_keys.VALUE_LENGTH) or default, rotary)


def _freq_base_multiplier(read: KeyReader, entry: Architecture, head_dim: int) -> float:
    alpha = read.factor(rope_keys.SCALING_ALPHA) if rope_keys.SCALING_ALPHA in entry.reads else None
    if not alpha or head_dim <= 2:
        return 1.0
    multiplier = math.pow(alpha, head_dim / (head_dim - 2))
    if multiplier > _LARGEST_ALPHA_MULTIPLIER:
        read.nonsense(rope_keys.SCALING_ALPHA, "a number that leaves the base a 32-bit float")
    return multiplier


def _layout(read: KeyReader, entry: Architecture) -> Layout:
    if entry.sections_when_present:
        sections = read.numbers(rope_keys.DIMENSION_SECTIONS)
        # Two numbers above 0 switch them on (llama_hparams::use_mrope).
        if len(sections) > 1 and min(sections[:2]) > 0:
            return Layout.SECTIONS
    return entry.layout


def _scaling(read: KeyReader, entry: Architecture, shards: tuple[Header, ...]) -> Scaling:
    kind = read.header.string(read.prefix + rope_keys.SCALING_TYPE)
    if kind is not None and kind not in {"none", "linear", "yarn", "longrope"}:
        read.nonsense(
            rope_keys.SCALING_TYPE,
            "none, linear, yarn or longrope",
            advice=f", or copy the file without the key: gguf-new-metadata --remove-metadata "
            f"{read.prefix}{rope_keys.SCALING_TYPE}; llama.cpp then takes the type for linear",
        )
    factor = read.factor(rope_keys.SCALING_FACTOR)
    if factor is None:
        factor = read.factor(rope_keys.SCALE_LINEAR)
    names = [tensor.name for shard in shards for tensor in factor_tensors(shard)]
    return Scaling(
        # llama.cpp takes an absent type for linear and an absent or zero factor for 1.
        type="linear" if kind is None else kind,
        factor=factor or 1.0,
        original_context_length=read.count(rope_keys.ORIGINAL_LENGTH, at_least=0),
        attention_factor=read.positive(rope_keys.ATTN_FACTOR) or 1.0,
        factor_tensors=tuple(names),
        yarn=yarn_of(read, entry),
    )


def facts_hash(header: Header, facts: ModelFacts) -> str:
    """Hash of the native RoPE facts, and of the tensors' names, shapes and types.

    Parameters
    ----------
    header : Header
        Of the original, before edits of ours: so the hash is the same before and after a rewrite.
    facts : ModelFacts
        From the same header.

    Returns
    -------
    str
        ``"sha256:"`` and 64 hexadecimal digits.
    """
    scaling = facts.scaling
    said = {
        "architecture": facts.architecture,
        "freq_base": facts.freq_base,
        "rotary_dim": facts.rotary_dim,
        "head_dim": facts.head_dim,
        "scaling": [scaling.type, scaling.factor, scaling.original_context_length],
        "attention_factor": scaling.attention_factor,
        "yarn": asdict(scaling.yarn),
        "factors": facts.factors,
        "tensors": [[tensor.name, tensor.shape, tensor.type] for tensor in header.tensors],
    }
    text = json.dumps(said, sort_keys=True)
    return f"sha256:{hashlib.sha256(text.encode('utf-8')).hexdigest()}"
