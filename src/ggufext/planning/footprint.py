"""Size of the KV cache that llama.cpp allocates for a model at a context length."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ggufext.header.layers import LayerFacts
    from ggufext.header.weights import Widths


#: llama.cpp keeps context lengths and positions in 32-bit integers.
LARGEST_TARGET = 2**31 - 1


#: llama.cpp rounds contexts and local caches up to this many cells (llama-kv-cache*.cpp).
CELL_PADDING = 256

#: Tokens of a micro-batch that llama.cpp uses when nobody says otherwise.
_DEFAULT_UBATCH = 512


class CacheType(Enum):
    """Storage type of the cache by its name, with bytes and elements of a block."""

    F16 = ("f16", 2, 1)
    Q8_0 = ("q8_0", 34, 32)
    Q4_0 = ("q4_0", 18, 32)

    label: str
    block_bytes: int
    block_elements: int

    def __new__(cls, label: str, block_bytes: int, block_elements: int) -> CacheType:
        """A member whose value is its name, which JSON goes by."""
        member = object.__new__(cls)
        member._value_ = member.label = label
        member.block_bytes, member.block_elements = block_bytes, block_elements
        return member


@dataclass(frozen=True, slots=True)
class KvCacheBytes:
    """Size of a KV cache, or of a token in it, by the type of its elements.

    Attributes
    ----------
    f16, q8_0, q4_0 : int or None
        Bytes; None where these heads cannot have the type.
    """

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
            held = min(cells, padded_cells(layer.window + _DEFAULT_UBATCH))
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


_FLOAT = 4


def compute_bytes(
    widths: Widths,
    layers: tuple[LayerFacts, ...],
    length: int,
    *,
    n_ubatch: int = _DEFAULT_UBATCH,
    flash_attention: bool = True,
) -> int:
    """Bytes of compute and output buffers for one sequence at a context length.

    Parameters
    ----------
    length : int
        Context length in tokens, > 0.
    n_ubatch : int
        Tokens of a micro-batch, all of which may be asked for their logits.
    flash_attention : bool
        Whether scores are never written out.

    Returns
    -------
    int
        The largest of three places of the graph: logits, feed-forward, attention. The allocator
        of ggml reuses what one leaves for the next.

    Source: fitted to the log of llama.cpp (llama-cpp-python 0.3.36) on the processor; compared
    with it in tests/llama/test_memory_log.py.
    """
    cells = padded_cells(length)
    # Models with local and global layers keep a mask for each.
    masks = cells * len({layer.window is None for layer in layers})
    feed_forward = 3 * widths.feed_forward + 4 * widths.embedding
    if flash_attention:
        attention = feed_forward + masks // 2  # 16-bit masks
    else:
        scores = widths.heads * cells + 6 * widths.embedding
        attention = max(feed_forward, scores) + masks
    logits = widths.vocabulary + 2 * widths.embedding
    # The logits that are kept are those of one token.
    return _FLOAT * (n_ubatch * max(logits, attention) + widths.vocabulary)


@dataclass(frozen=True, slots=True)
class CacheFit:
    """Whether a context with one type of KV cache fits.

    Attributes
    ----------
    cache_type : str
        ``"f16"``, ``"q8_0"`` or ``"q4_0"``.
    bytes : int
        Bytes of the cache at the target.
    weights_bytes : int
        Bytes of the tensors.
    compute_bytes : int
        Bytes of the compute buffers at the target.
    fits : bool
        Weights, cache and compute buffers together.
    largest_context : int
        Longest context that fits, tokens, a multiple of 256, up to 2³¹ − 1.
    """

    cache_type: str
    bytes: int
    weights_bytes: int
    compute_bytes: int
    fits: bool
    largest_context: int


def cache_fits(
    layers: tuple[LayerFacts, ...], length: int, *, widths: Widths, weights: int, memory: int
) -> tuple[CacheFit, ...]:
    """Which cache types fit into a memory together with everything else.

    Parameters
    ----------
    length : int
        Context length in tokens.
    widths : Widths
    weights, memory : int
        Bytes of the tensors, and of the memory that holds everything.
    """

    def needed(cells: int, cache_type: CacheType) -> int | None:
        cache = kv_cache_bytes(layers, cells, cache_type)
        return None if cache is None else weights + cache + compute_bytes(widths, layers, cells)

    def largest(cache_type: CacheType) -> int:
        low, high = 0, LARGEST_TARGET // CELL_PADDING
        while low < high:
            middle = (low + high + 1) // 2
            size = needed(middle * CELL_PADDING, cache_type)
            low, high = (middle, high) if size is not None and size <= memory else (low, middle - 1)
        return low * CELL_PADDING

    found = []
    for cache_type in CacheType:
        cache, size = kv_cache_bytes(layers, length, cache_type), needed(length, cache_type)
        if cache is None or size is None:
            continue
        compute = compute_bytes(widths, layers, length)
        found.append(
            CacheFit(cache_type.label, cache, weights, compute, size <= memory, largest(cache_type))
        )
    return tuple(found)
