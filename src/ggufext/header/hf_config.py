"""Facts of the model that a Hugging Face config.json describes, as Transformers would take them."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NoReturn

from ggufext.errors import HeaderError, ModelWarning, PlanError, printable
from ggufext.header.architectures import FactorSupport, Layout, Support
from ggufext.header.facts import MOST_LAYERS, ModelFacts, Scaling
from ggufext.header.frequencies import (
    LLAMA3_HIGH_TURNS,
    LLAMA3_LOW_TURNS,
    ROPE_FACTORS_LONG,
    ROPE_FACTORS_SHORT,
    ROPE_FREQS,
    USUAL_YARN,
    Yarn,
    inverse_frequencies,
    llama3_factors,
    longrope_attention_factor,
)
from ggufext.header.hf_reader import ConfigReader, parsed
from ggufext.header.layers import LayerFacts
from ggufext.header.training import at_documented_length, with_published

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path


#: Parts of a configuration that hold the language model of a larger one.
_SECTIONS = ("text_config", "llm_config", "language_config")

#: Largest head taken for real, elements.
_LARGEST_HEAD = 65_536

#: Model types with a learned row for each position.
_LEARNED = frozenset(
    ["gpt2", "gpt_bigcode", "gpt_neo", "opt", "xglm", "bert", "roberta", "electra", "biogpt"]
)

_ORIGINAL = "original_max_position_embeddings"

#: Entries of YaRN that this program computes with these values only.
_YARN_STANDARD: Mapping[str, object] = {"truncate": True}

_YARN_ENTRIES = ("attention_factor", "mscale", "mscale_all_dim", "beta_fast", "beta_slow")

#: What each rope_type may come with, beside its name and the base.
_ENTRIES: Mapping[str, tuple[str, ...]] = {
    "default": (),
    "linear": ("factor",),
    "dynamic": ("factor", _ORIGINAL),
    "yarn": ("factor", _ORIGINAL, *_YARN_ENTRIES, *_YARN_STANDARD),
    "llama3": ("factor", _ORIGINAL, "low_freq_factor", "high_freq_factor"),
    "longrope": ("factor", _ORIGINAL, "attention_factor", "short_factor", "long_factor"),
}

#: Entries of a rope block that say nothing of frequencies; every plan leaves them as they are.
_KEPT = ("partial_rotary_factor", "mrope_section", "mrope_interleaved")

_IGNORED = ("rope_type", "type", "rope_theta", "finetuned")

#: Window of each attention layer in tokens; None for a layer that sees everything.
_Windows = tuple[int | None, ...]

#: Every n-th layer is global where the file does not say (Transformers' configuration classes).
_PATTERNS = {"gemma2": 2, "gemma3_text": 6, "cohere2": 4}

#: Layers without a growing cache: they hold a state of fixed size.
_RECURRENT = frozenset({"linear_attention", "conv", "mamba", "recurrent"})


@dataclass(frozen=True, slots=True)
class HfConfig:
    """A configuration and how it spells the rotation.

    Attributes
    ----------
    facts : ModelFacts
        Without metadata: there is no GGUF key to edit.
    section : str or None
        Part of the file that holds the language model (``"text_config"``).
    kept : tuple of (str, object)
        Entries of the rope block that a plan must repeat.
    local : tuple of (str, object) or None
        The rope block of sliding-window layers, where they have one of their own.
    warnings : tuple of ModelWarning
    """

    facts: ModelFacts
    section: str | None
    kept: tuple[tuple[str, object], ...]
    local: tuple[tuple[str, object], ...] | None
    warnings: tuple[ModelWarning, ...]


def config_file(path: Path) -> Path | None:
    """The config.json that a path names, itself or as its folder; None for anything else."""
    if path.suffix.lower() == ".json":
        return path
    inside = path / "config.json"
    return inside if path.is_dir() and inside.exists() else None


def read_config(path: Path, *, train_length: int | None = None) -> HfConfig:
    """Read a config.json.

    Parameters
    ----------
    path : Path
    train_length : int, optional
        The real training length in tokens, where max_position_embeddings says something else.

    Raises
    ------
    HeaderError
        ``not_config`` for anything that is no JSON object; ``missing_key``, ``wrong_type`` and
        ``nonsense_value`` by entry.
    PlanError
        ``not_a_language_model``, ``no_rope``, ``learned_positions``, ``cannot_combine`` and
        ``local_layers_would_change``: nothing that this program could plan.
    """
    try:
        entries = parsed(path)
        section = next((name for name in _SECTIONS if isinstance(entries.get(name), dict)), None)
        reader = ConfigReader(entries[section] if section else entries, section)
        found = _config(reader, entries, section, train_length)
        facts = with_published(found.facts, _names(path, entries))
        return replace(found, facts=at_documented_length(facts) if train_length is None else facts)
    except (HeaderError, PlanError) as error:
        error.path = path
        raise


def _names(path: Path, entries: dict[str, Any]) -> Iterator[str]:
    """Names of the model: config.json has none, but folders and caches are called after it."""
    stored = entries.get("_name_or_path")
    if isinstance(stored, str):
        yield stored.rpartition("/")[2]
    for folder in path.resolve().parents:
        # models--OWNER--NAME/snapshots/REVISION in the cache of the Hub.
        if folder.name.startswith("models--"):
            yield folder.name.rpartition("--")[2]
    yield path.resolve().parent.name


def _config(
    read: ConfigReader, whole: dict[str, Any], section: str | None, train_length: int | None
) -> HfConfig:
    rope, local_rope = _rope_blocks(read)
    _refuse_what_cannot_be_extended(read, rope)
    context_length = read.required("max_position_embeddings")
    heads = read.required("num_attention_heads")
    head_dim = read.count("head_dim", at_most=_LARGEST_HEAD)
    if head_dim is None:
        head_dim = read.required("hidden_size", at_most=heads * _LARGEST_HEAD) // heads
    partial = rope.real("partial_rotary_factor") or read.real("partial_rotary_factor") or 1.0
    rotary_dim = int(head_dim * partial)
    if rotary_dim % 2 or not 2 <= rotary_dim <= head_dim:
        read.nonsense("head_dim", f"an even number of rotated dimensions; found {rotary_dim}")
    base = rope.real("rope_theta", above=1.0) or read.real("rope_theta", above=1.0)
    if base is None:
        read.missing("rope_theta")
    inv_freq = inverse_frequencies(base, rotary_dim)
    scaling, warnings = _scaling(read, rope, context_length)
    windows = _windows(read, own_rotation=local_rope is not None)
    length, source = _length(scaling, context_length, rope.field("factor"), train_length)
    return HfConfig(
        facts=ModelFacts(
            architecture=read.model_type.removesuffix("_text"),
            support=Support.VERIFIED,
            layout=Layout.SECTIONS if "mrope_section" in rope.entries else Layout.HALF,
            train_length=length,
            train_length_source=source or read.field("max_position_embeddings"),
            context_length=context_length,
            freq_base=base,
            rotary_dim=rotary_dim,
            head_dim=head_dim,
            scaling=scaling,
            has_scaling_factor=False,
            layers=_layers(read, windows, base, local_rope, heads, head_dim),
            metadata=(),
            factors=_factors(rope, scaling, inv_freq),
            # Transformers takes either kind for every model, by rope_type.
            factor_support=FactorSupport.BY_TYPE,
        ),
        section=section,
        kept=_kept(rope, rotary_dim, head_dim),
        local=None if local_rope is None else tuple(local_rope.entries.items()),
        warnings=(*warnings, *_windows_everywhere(windows), *_own_code(whole)),
    )


def _rope_blocks(read: ConfigReader) -> tuple[ConfigReader, ConfigReader | None]:
    """The rope block of the layers that an extension moves, and that of the local layers."""
    name = "rope_parameters" if read.entries.get("rope_parameters") is not None else "rope_scaling"
    block = read.part(name) or {}
    place = read.field(name)
    if "full_attention" in block:
        full, local = (
            ConfigReader(block, place).part(kind)
            for kind in ("full_attention", "sliding_attention")
        )
        return ConfigReader(full or {}, f"{place}.full_attention"), (
            _unscaled(read, ConfigReader(local, f"{place}.sliding_attention")) if local else None
        )
    local_base = read.real("rope_local_base_freq", above=1.0)
    if local_base is None:
        return ConfigReader(block, place), None
    local_block: dict[str, Any] = {"rope_type": "default", "rope_theta": local_base}
    return ConfigReader(block, place), ConfigReader(local_block, read.place)


def _unscaled(read: ConfigReader, local: ConfigReader) -> ConfigReader:
    """The rope block of local layers, which no plan touches, with its base."""
    if _rope_type(local) != "default":
        raise PlanError(
            code="cannot_combine",
            field=local.field("rope_type"),
            message="local layers are scaled themselves, which this program does not plan",
        )
    base = local.real("rope_theta", above=1.0) or read.real("rope_theta", above=1.0)
    if base is None:
        local.missing("rope_theta")
    return ConfigReader(local.entries | {"rope_type": "default", "rope_theta": base}, local.place)


def _rope_type(rope: ConfigReader) -> str:
    """Name of the scaling, older names made new."""
    kind = str(rope.entries.get("rope_type") or rope.entries.get("type") or "default")
    return {"su": "longrope", "mrope": "default", "none": "default"}.get(kind, kind)


def _refuse_what_cannot_be_extended(read: ConfigReader, rope: ConfigReader) -> None:
    def refuse(code: str, field: str, message: str) -> NoReturn:
        raise PlanError(code=code, field=read.field(field), message=message)

    model_type = printable(read.model_type, 40) or "a model without model_type"
    if read.model_type in _LEARNED:
        refuse(
            "learned_positions",
            "model_type",
            f"{model_type} has a learned row for each position: nothing to extend",
        )
    if read.found("rope_theta")[1] is None and not rope.entries:
        refuse(
            "no_rope",
            "rope_theta",
            f"neither rope_theta nor rope_parameters is there: {model_type} does not say that it "
            "rotates; where its class has a default base, write rope_theta into the file",
        )
    if read.entries.get("kv_lora_rank") is not None:
        refuse(
            "cannot_combine",
            "kv_lora_rank",
            "latent attention scales its scores when frequencies are scaled, which this program "
            "cannot plan from a configuration: plan the GGUF file",
        )


def _scaling(
    read: ConfigReader, rope: ConfigReader, context_length: int
) -> tuple[Scaling, tuple[ModelWarning, ...]]:
    kind = _rope_type(rope)
    _refuse_unknown_entries(rope, kind)
    factor = rope.real("factor") or 1.0
    # Phi-3's files have it outside the block.
    original = rope.count(_ORIGINAL) or read.count(_ORIGINAL)
    if kind == "linear":
        return Scaling("linear", factor, None, 1.0, ()), ()
    if kind == "yarn":
        attention = _yarn_attention(rope, factor)
        keys = _yarn_keys(rope)
        return Scaling("yarn", factor, original or context_length, attention, (), keys), ()
    if kind == "llama3":
        return Scaling("linear", 1.0, original or context_length, 1.0, (ROPE_FREQS,)), ()
    if kind == "longrope":
        original = original or context_length
        attention = _longrope_attention(rope, context_length / original, original)
        tensors = (ROPE_FACTORS_LONG, ROPE_FACTORS_SHORT)
        return Scaling("longrope", 1.0, original, attention, tensors), ()
    unscaled = Scaling("none", 1.0, None, 1.0, ())
    if kind != "dynamic":
        return unscaled, ()
    return unscaled, (
        ModelWarning(
            "scaling_replaced",
            f"{rope.place} is dynamic: it scales nothing up to the training length, and the plan "
            "takes its place",
        ),
    )


def _refuse_unknown_entries(rope: ConfigReader, kind: str) -> None:
    name = "rope_type" if "rope_type" in rope.entries else "type"
    if kind not in _ENTRIES:
        raise PlanError(
            code="cannot_combine",
            field=rope.field(name),
            message=f"is {printable(kind, 40)}; this program can compute {', '.join(_ENTRIES)}",
        )
    known = (*_ENTRIES[kind], *_IGNORED, *_KEPT)
    for key, value in rope.entries.items():
        if key not in known or value not in (_YARN_STANDARD.get(key, value), None):
            raise PlanError(
                code="cannot_combine",
                field=printable(rope.field(key), 100),
                message=f"is {printable(json.dumps(value), 60)}, which changes {kind} in a way "
                "this program does not compute",
            )


def _yarn_attention(rope: ConfigReader, factor: float) -> float:
    """What YaRN's own attention factor is multiplied by."""
    given = rope.real("attention_factor")
    return 1.0 if given is None else given / USUAL_YARN.attention_factor(factor, 1.0)


def _yarn_keys(rope: ConfigReader) -> Yarn:
    """Source: Transformers, _compute_yarn_parameters."""
    usual = USUAL_YARN
    mscale, all_dim = rope.real("mscale"), rope.real("mscale_all_dim")
    if rope.real("attention_factor") is not None or mscale is None or all_dim is None:
        mscale, all_dim = usual.mscale, usual.mscale_all_dim
    return Yarn(
        beta_fast=rope.real("beta_fast") or usual.beta_fast,
        beta_slow=rope.real("beta_slow") or usual.beta_slow,
        mscale=mscale,
        mscale_all_dim=all_dim,
    )


def _longrope_attention(rope: ConfigReader, factor: float, original: int) -> float:
    """Source: Transformers, _compute_longrope_parameters."""
    factor = rope.real("factor") or factor
    given = rope.real("attention_factor")
    return longrope_attention_factor(factor, original) if given is None else given


def _factors(
    rope: ConfigReader, scaling: Scaling, inv_freq: tuple[float, ...]
) -> tuple[tuple[str, tuple[float, ...]], ...]:
    """Factors of single pairs, by the names of the tensors that hold them in GGUF."""
    if scaling.type == "longrope":
        pairs = len(inv_freq)
        return (
            (ROPE_FACTORS_LONG, rope.reals("long_factor", pairs)),
            (ROPE_FACTORS_SHORT, rope.reals("short_factor", pairs)),
        )
    if ROPE_FREQS not in scaling.factor_tensors:
        return ()
    low = rope.real("low_freq_factor") or LLAMA3_LOW_TURNS
    high = rope.real("high_freq_factor") or LLAMA3_HIGH_TURNS
    if high <= low:
        rope.nonsense("high_freq_factor", f"more than low_freq_factor, which is {low:g}")
    factors = llama3_factors(
        inv_freq,
        rope.real("factor") or 1.0,
        scaling.original_context_length or 1,
        low_turns=low,
        high_turns=high,
    )
    return ((ROPE_FREQS, factors),)


def _length(
    scaling: Scaling, context_length: int, factor_field: str, train_length: int | None
) -> tuple[int, str | None]:
    """Training length and where it comes from, None for max_position_embeddings."""
    if train_length is not None:
        return train_length, "--train-length"
    reached = round((scaling.original_context_length or 0) * scaling.factor)
    if scaling.type == "yarn" and reached > context_length:
        # Many files raise the factor and leave max_position_embeddings.
        return reached, factor_field
    return context_length, None


def _layers(
    read: ConfigReader,
    windows: _Windows,
    base: float,
    local_rope: ConfigReader | None,
    heads: int,
    head_dim: int,
) -> tuple[LayerFacts, ...]:
    heads_kv = read.count("num_key_value_heads") or heads
    local_base = None if local_rope is None else local_rope.real("rope_theta", above=1.0)
    return tuple(
        LayerFacts(
            window=window,
            freq_base=base if window is None or local_base is None else local_base,
            moves=window is None or local_base is None,
            head_count_kv=heads_kv,
            key_length=head_dim,
            value_length=head_dim,
            # Layers with parameters of their own have an attention factor of their own.
            follows_attention=window is None or local_base is None,
        )
        for window in windows
    )


def _kept(rope: ConfigReader, rotary_dim: int, head_dim: int) -> tuple[tuple[str, object], ...]:
    kept = {name: rope.entries[name] for name in _KEPT if rope.entries.get(name) is not None}
    if rotary_dim != head_dim:
        # It may lie outside the block; a block that replaces the loaded one must hold it.
        kept["partial_rotary_factor"] = rotary_dim / head_dim
    return tuple(kept.items())


def _windows_everywhere(windows: _Windows) -> tuple[ModelWarning, ...]:
    seen = [window for window in windows if window is not None]
    if not seen or len(seen) < len(windows):
        return ()
    return (
        ModelWarning(
            "windows_everywhere",
            f"every layer sees {max(seen):,} tokens at most: what lies further back is reached "
            "from layer to layer only, in a longer context too",
        ),
    )


def _own_code(whole: dict[str, Any]) -> tuple[ModelWarning, ...]:
    if "auto_map" not in whole:
        return ()
    return (
        ModelWarning(
            "own_code",
            "auto_map: the model brings code of its own, which may read other entries than "
            "Transformers does",
        ),
    )


def _windows(read: ConfigReader, *, own_rotation: bool) -> _Windows:
    """Windows of the layers, whose local ones may have a rope block of their own."""
    count = read.required("num_hidden_layers", at_most=MOST_LAYERS)
    name, kinds = _layer_types(read, count)
    attention = [kind for kind in kinds if kind not in _RECURRENT]
    other = set(attention) - {"full_attention", "sliding_attention"}
    mixed = len(set(attention)) > 1
    if other or (mixed and not own_rotation):
        raise PlanError(
            code="local_layers_would_change",
            field=read.field(name),
            message="local layers share the rope block of the global ones in Transformers, and an "
            "extension would move them too; plan the GGUF file, where llama.cpp may keep them "
            "apart",
        )
    window = read.required("sliding_window") if "sliding_attention" in attention else None
    return tuple(window if kind == "sliding_attention" else None for kind in attention)


def _layer_types(read: ConfigReader, count: int) -> tuple[str, list[str]]:
    """The entry that decides, and the type of each layer."""
    kinds = read.entries.get("layer_types")
    if kinds is not None:
        read.check_type("layer_types", kinds, list, "a list")
        if len(kinds) != count or not all(isinstance(kind, str) for kind in kinds):
            read.nonsense("layer_types", f"{count} names, one a layer")
        return "layer_types", list(kinds)
    if read.entries.get("attention_chunk_size") is not None:
        return "attention_chunk_size", ["chunked_attention"] * count
    # Qwen's files name a window that nothing uses unless this switch is on.
    unused = read.model_type.startswith("qwen") and not read.entries.get("use_sliding_window")
    if read.entries.get("sliding_window") is None or unused:
        return "sliding_window", ["full_attention"] * count
    first_local = read.count("max_window_layers") or 0
    if read.model_type.startswith("qwen"):
        return "max_window_layers", [
            "sliding_attention" if layer >= first_local else "full_attention"
            for layer in range(count)
        ]
    period = read.count("sliding_window_pattern") or _PATTERNS.get(read.model_type)
    if period is None:
        return "sliding_window", ["sliding_attention"] * count
    return "sliding_window_pattern", [
        "full_attention" if (layer + 1) % period == 0 else "sliding_attention"
        for layer in range(count)
    ]
