"""Whether a context fits into a memory: weights, KV cache and compute buffers together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ggufext.planning.compute import compute_bytes
from ggufext.planning.kv_cache import CELL_PADDING, CacheType, kv_cache_bytes
from ggufext.planning.plan import LARGEST_TARGET

if TYPE_CHECKING:
    from ggufext.header.layers import LayerFacts
    from ggufext.header.widths import Widths


@dataclass(frozen=True, slots=True)
class CacheFit:
    """Whether a context with one type of KV cache fits.

    Attributes
    ----------
    cache_type : str
        ``"f16"``, ``"q8_0"`` or ``"q4_0"``.
    bytes : int
        Of the cache at the target.
    compute_bytes : int
        Of the compute buffers at the target.
    fits : bool
        Weights, cache and compute buffers together.
    largest_context : int
        Longest context that fits, tokens, a multiple of 256, up to 2³¹ − 1.
    """

    cache_type: str
    bytes: int
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
            CacheFit(cache_type.label, cache, compute, size <= memory, largest(cache_type))
        )
    return tuple(found)
