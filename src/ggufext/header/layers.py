"""What each layer of a model does with positions, and what it keeps in the KV cache."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from ggufext.header import rope_keys
from ggufext.header.architectures import LocalRotation, Unrotated

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ggufext.header.architectures import Architecture
    from ggufext.header.rope_keys import KeyReader


@dataclass(frozen=True, slots=True)
class LayerFacts:
    """One layer's part in positions and in the KV cache.

    Attributes
    ----------
    window : int or None
        Tokens that a sliding-window (local) layer sees; None for a global layer.
    freq_base : float
        RoPE base that this layer rotates with; without meaning where it does not.
    moves : bool
        Whether an extension is meant for this layer: it rotates and sees the whole context.
    head_count_kv, key_length, value_length : int
        KV heads, and elements per head of a key and of a value; no heads where the layer keeps
        no cache of its own, no values where they are part of the keys (MLA).
    rotates : bool
        Whether the layer knows positions at all.
    rotary_dim : int or None
        Rotated elements of a head; None: as the model's.
    follows_freq_base : bool
        Whether a new rope.freq_base reaches this layer as the file is.
    freq_base_can_be_kept : bool
        Whether rope.freq_base_swa would keep this layer's base.
    follows_scaling : bool
        Whether rope.scaling reaches this layer.
    scaled_under_none : bool
        Whether rope.scaling.factor divides its positions under type none too.
    follows_attention : bool
        Whether attention factors reach this layer.
    """

    window: int | None
    freq_base: float
    moves: bool
    head_count_kv: int
    key_length: int
    value_length: int
    rotates: bool = True
    rotary_dim: int | None = None
    follows_freq_base: bool = False
    freq_base_can_be_kept: bool = False
    follows_scaling: bool = False
    scaled_under_none: bool = False
    follows_attention: bool = True


@dataclass(frozen=True, slots=True)
class LayerInFile:
    """One layer as llama.cpp runs it.

    Attributes
    ----------
    layer : int
        From 0.
    window : int or None
        Tokens that a sliding-window (local) layer sees; None for a global one.
    rotates : bool
        Whether it rotates queries and keys.
    freq_base : float or None
        RoPE base θ; None where the layer does not rotate.
    rotary_dim : int or None
        Rotated dimensions of a head; None where the layer does not rotate.
    moves : bool
        Whether an extension is meant for it.
    head_count_kv, key_length, value_length : int
        What it holds in the KV cache for a token: KV heads, and elements of a key and of a value a
        head; no heads: nothing, as of a recurrent layer or one that shares the cache of another.
    """

    layer: int
    window: int | None
    rotates: bool
    freq_base: float | None
    rotary_dim: int | None
    moves: bool
    head_count_kv: int
    key_length: int
    value_length: int


def layers_in_file(layers: Sequence[LayerFacts], rotary_dim: int) -> tuple[LayerInFile, ...]:
    """Every layer as it is told.

    Parameters
    ----------
    layers : sequence of LayerFacts
    rotary_dim : int
        Rotated elements of a head where a layer has no number of its own.
    """
    return tuple(
        LayerInFile(
            layer=number,
            window=layer.window,
            rotates=layer.rotates,
            freq_base=layer.freq_base if layer.rotates else None,
            rotary_dim=(layer.rotary_dim or rotary_dim) if layer.rotates else None,
            moves=layer.moves,
            head_count_kv=layer.head_count_kv,
            key_length=layer.key_length,
            value_length=layer.value_length,
        )
        for number, layer in enumerate(layers)
    )


class HeadSizes(NamedTuple):
    """Elements of a head: of a key, of a value, and rotated."""

    key: int
    value: int
    rotary: int


def layer_facts(
    read: KeyReader,
    entry: Architecture,
    *,
    freq_base: float,
    heads_kv: tuple[int, ...],
    sizes: HeadSizes,
) -> tuple[LayerFacts, ...]:
    """Facts of every layer.

    Parameters
    ----------
    read : KeyReader
    entry : Architecture
    freq_base : float
        RoPE base of the global layers.
    heads_kv : tuple of int
        KV heads of each layer.
    sizes : HeadSizes
        Of global layers.

    Raises
    ------
    HeaderError
        ``wrong_type`` or ``nonsense_value``.
    """
    count = len(heads_kv)
    window, local = _windows(read, entry, count)
    rotates = _rotating(read, entry, local)
    cached = _cached(read, entry, count)
    own_base = read.positive(rope_keys.FREQ_BASE_SWA, above=1.0) if any(local) else None
    local_sizes = HeadSizes(
        key=read.count(rope_keys.KEY_LENGTH_SWA) or sizes.key,
        value=read.count(rope_keys.VALUE_LENGTH_SWA) or sizes.value,
        rotary=read.count(rope_keys.DIMENSION_COUNT_SWA) or sizes.rotary,
    )
    if any(local) and (local_sizes.rotary % 2 or local_sizes.rotary > local_sizes.key):
        sources = (rope_keys.DIMENSION_COUNT_SWA, rope_keys.KEY_LENGTH_SWA)
        read.nonsense(
            next(suffix for suffix in sources if read.prefix + suffix in read.header.keys),
            f"an even number of rotated dimensions, at most {local_sizes.key} a head",
        )
    first = local_sizes if local and local[0] else sizes
    facts = []
    for layer in range(count):
        is_local = local[layer]
        size = local_sizes if is_local else sizes
        base, follows = freq_base, True
        if is_local:
            base, follows = _local_base(entry, freq_base, own_base)
        facts.append(
            LayerFacts(
                window=window if is_local else None,
                freq_base=base,
                moves=rotates[layer] and not is_local,
                head_count_kv=heads_kv[layer] if cached[layer] else 0,
                key_length=size.key,
                value_length=0 if _latent(read, entry) else size.value,
                rotates=rotates[layer],
                rotary_dim=(size if entry.rotary_dim_per_layer else first).rotary,
                follows_freq_base=follows,
                freq_base_can_be_kept=is_local and entry.local_rotation in _SWA_BASE_IS_READ,
                follows_scaling=not is_local or entry.local_rotation in _SCALING_IS_READ,
                scaled_under_none=is_local and entry.local_rotation is LocalRotation.COPIED,
                follows_attention=not is_local or entry.local_rotation is not LocalRotation.PLAIN,
            )
        )
    return tuple(facts)


_SWA_BASE_IS_READ = {
    LocalRotation.OWN_BASE,
    LocalRotation.COPIED,
    LocalRotation.COPIED_BASE,
}
_SCALING_IS_READ = {LocalRotation.COPIED, LocalRotation.GLOBAL}


def _local_base(
    entry: Architecture, freq_base: float, own_base: float | None
) -> tuple[float, bool]:
    """Base of local layers, and whether a new rope.freq_base would change it."""
    if entry.local_rotation in _SWA_BASE_IS_READ and own_base is not None:
        return own_base, False
    if entry.local_rotation is LocalRotation.OWN_BASE:
        return entry.local_freq_base or freq_base, False
    return freq_base, True


def _windows(
    read: KeyReader, entry: Architecture, count: int
) -> tuple[int | None, tuple[bool, ...]]:
    """Window of the local layers, and which they are."""
    none = (False,) * count
    if entry.local_rotation is None or entry.local_block_count not in {None, count}:
        return None, none
    window = read.count(rope_keys.SLIDING_WINDOW, at_least=0)
    if window is None:
        window = entry.local_window
    elif window and entry.fixed_window:
        window = entry.fixed_window
    if not window:
        return None, none
    return window, _local_layers(read, entry, count)


def _local_layers(read: KeyReader, entry: Architecture, count: int) -> tuple[bool, ...]:
    if entry.local_where_attention:
        return tuple(heads > 0 for heads in read.per_layer(rope_keys.HEAD_COUNT_KV, count) or ())
    suffix = rope_keys.SLIDING_WINDOW_PATTERN
    if read.is_array(suffix):
        given = read.flags(suffix)[:count]
        # llama.cpp takes layers that a short array does not reach for global ones.
        return given + (False,) * (count - len(given))
    period = read.count(suffix, at_least=0)
    if period is None:
        period = entry.local_pattern
    if period is None:
        read.missing(suffix)
    # A period of 0 means that every layer is local (llama_hparams::set_swa_pattern).
    return tuple(
        period == 0 or i % period != (0 if entry.first_is_global else period - 1)
        for i in range(count)
    )


def _rotating(read: KeyReader, entry: Architecture, local: tuple[bool, ...]) -> tuple[bool, ...]:
    count, windowed = len(local), any(local)
    if entry.rope_pattern:
        given = read.flags(rope_keys.ROPE_PATTERN)[:count]
        return given + (True,) * (count - len(given))
    match entry.unrotated:
        case Unrotated.GLOBAL_BESIDE_LOCAL if windowed:
            dense = read.count("leading_dense_block_count", at_least=0) or 0
            first = dense if entry.dense_layers_rotate else 0
            return tuple(is_local or i < first for i, is_local in enumerate(local))
        case Unrotated.EVERY_FOURTH:
            return tuple((i + 1) % 4 != 0 for i in range(count))
        case Unrotated.EVERY_FOURTH_BESIDE_LOCAL if windowed and count != 4:
            return tuple(i % 4 != 0 for i in range(count))
    return _attending(read, entry, count)


def _attending(read: KeyReader, entry: Architecture, count: int) -> tuple[bool, ...]:
    """Which layers attend; the others are recurrent (state-space or linear attention)."""
    if entry.recurrent_interval is not None:
        if read.is_array(rope_keys.RECURRENT_LAYERS):
            recurs = read.flags(rope_keys.RECURRENT_LAYERS)[:count]
            attends = tuple(not each for each in recurs)
            if len(attends) < count:
                read.nonsense(rope_keys.RECURRENT_LAYERS, f"{count} values, one a layer")
            return attends
        interval = read.count("full_attention_interval") or entry.recurrent_interval
        return tuple((i + 1) % interval == 0 for i in range(count))
    heads = read.per_layer(rope_keys.HEAD_COUNT_KV, count)
    return (True,) * count if heads is None else tuple(kv > 0 for kv in heads)


def _cached(read: KeyReader, entry: Architecture, count: int) -> tuple[bool, ...]:
    """Which layers hold keys and values of their own."""
    held = entry.cached_layers or count
    if entry.shared_kv_layers:
        held -= read.count(rope_keys.SHARED_KV_LAYERS, at_least=0) or 0
    return tuple(attends and i < held for i, attends in enumerate(_attending(read, entry, count)))


def _latent(read: KeyReader, entry: Architecture) -> bool:
    return entry.latent_cache and read.count(rope_keys.KEY_LENGTH_MLA) is not None
