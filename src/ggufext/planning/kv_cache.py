"""Size of the KV cache that llama.cpp allocates for a model at a context length."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ggufext.header.layers import LayerFacts

#: llama.cpp rounds contexts and local caches up to this many cells (llama-kv-cache*.cpp).
CELL_PADDING = 256

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
    cells = padded_cells(length)
    total = 0
    for layer in layers:
        held = cells
        if layer.window is not None:
            held = min(cells, padded_cells(layer.window + DEFAULT_UBATCH))
        for elements in (layer.key_length, layer.value_length):
            row = layer.head_count_kv * elements
            if elements % cache_type.block_elements:
                return None
            total += held * row // cache_type.block_elements * cache_type.block_bytes
    return total


def bytes_per_token(layers: tuple[LayerFacts, ...], cache_type: CacheType) -> int | None:
    """Bytes by which the cache grows with each token: what the global layers hold.

    None where the type cannot hold these heads.
    """
    growing = tuple(layer for layer in layers if layer.window is None)
    size = kv_cache_bytes(growing, CELL_PADDING, cache_type)
    return None if size is None else size // CELL_PADDING


def padded_cells(cells: int) -> int:
    """Cells that llama.cpp creates for a context: a multiple of `CELL_PADDING`."""
    return -(-cells // CELL_PADDING) * CELL_PADDING
