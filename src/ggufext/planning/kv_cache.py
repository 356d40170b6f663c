"""Size of the KV cache that llama.cpp allocates for a model at a context length."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ggufext.header.layers import LayerFacts

#: llama.cpp rounds contexts and local caches up to this many cells (llama-kv-cache*.cpp).
CELL_PADDING = 256

#: llama.cpp counts positions in 32-bit integers.
_LONGEST = 2**31 - 1

#: Tokens of a micro-batch that llama.cpp uses when nobody says otherwise.
DEFAULT_UBATCH = 512


class CacheType(Enum):
    """Storage type of the cache: name, bytes of a block, elements of a block."""

    F16 = ("f16", 2, 1)
    Q8_0 = ("q8_0", 34, 32)
    Q4_0 = ("q4_0", 18, 32)

    def __init__(self, label: str, block_bytes: int, block_elements: int) -> None:
        self.label = label
        self.block_bytes = block_bytes
        self.block_elements = block_elements


@dataclass(frozen=True, slots=True)
class KvCacheBytes:
    """Bytes of a cache, or of a token in it, per type; None where a type cannot be used."""

    f16: int | None
    q8_0: int | None
    q4_0: int | None


def kv_cache_bytes(
    layers: tuple[LayerFacts, ...], length: int, cache_type: CacheType
) -> int | None:
    """Bytes of the KV cache for one sequence at a context length.

    Global layers hold a cell for every position; local (sliding-window) layers hold no more
    than their window and a micro-batch.

    Parameters
    ----------
    layers : tuple of LayerFacts
    length : int
        Context length in tokens, > 0.
    cache_type : CacheType
        Type of both keys and values.

    Returns
    -------
    int or None
        None where the type cannot hold these heads (quantized rows need multiples of 32).

    Source: llama.cpp, llama-kv-cache.cpp and llama-kv-cache-iswa.cpp; compared with its log.
    """
    cells = _padded(length)
    total = 0
    for layer in layers:
        held = cells
        if layer.window is not None:
            held = min(cells, _padded(layer.window + DEFAULT_UBATCH))
        for elements in (layer.key_length, layer.value_length):
            row = layer.head_count_kv * elements
            if elements % cache_type.block_elements:
                return None
            total += held * row // cache_type.block_elements * cache_type.block_bytes
    return total


@dataclass(frozen=True, slots=True)
class CacheFit:
    """Whether a KV cache fits beside the weights.

    Attributes
    ----------
    cache_type : str
        ``"f16"``, ``"q8_0"`` or ``"q4_0"``.
    bytes : int
        Of the cache at the target.
    fits : bool
        Weights and cache together; compute buffers come on top.
    largest_context : int
        Longest context that fits, tokens, a multiple of 256, up to 2³¹ − 1.
    """

    cache_type: str
    bytes: int
    fits: bool
    largest_context: int


def cache_fits(
    layers: tuple[LayerFacts, ...], length: int, *, weights: int, memory: int
) -> tuple[CacheFit, ...]:
    """Which cache types fit into a memory together with the weights.

    Parameters
    ----------
    length : int
        Context length in tokens.
    weights, memory : int
        Bytes of the tensors, and of the memory that holds everything.
    """
    fits = []
    for cache_type in CacheType:
        size = kv_cache_bytes(layers, length, cache_type)
        if size is None:
            continue
        largest = _largest_context(layers, memory - weights, cache_type)
        fits.append(CacheFit(cache_type.label, size, weights + size <= memory, largest))
    return tuple(fits)


def bytes_per_token(layers: tuple[LayerFacts, ...], cache_type: CacheType) -> int | None:
    """Bytes by which the cache grows with each token: what the global layers hold.

    None where the type cannot hold these heads.
    """
    growing = tuple(layer for layer in layers if layer.window is None)
    size = kv_cache_bytes(growing, CELL_PADDING, cache_type)
    return None if size is None else size // CELL_PADDING


def _largest_context(layers: tuple[LayerFacts, ...], available: int, cache_type: CacheType) -> int:
    """Longest context in tokens, a multiple of 256, whose cache fits into `available` bytes."""

    def fits(blocks: int) -> bool:
        size = kv_cache_bytes(layers, blocks * CELL_PADDING, cache_type)
        return size is not None and size <= available

    low, high = 0, _LONGEST // CELL_PADDING
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low * CELL_PADDING


def _padded(cells: int) -> int:
    return -(-cells // CELL_PADDING) * CELL_PADDING
