from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ggufext.header.weights import Widths
from ggufext.planning.footprint import CacheType, cache_fits, compute_bytes, kv_cache_bytes
from planning.facts import LLAMA_3

GIB = 2**30
WIDTHS = Widths(vocabulary=128_256, embedding=4096, feed_forward=14_336, heads=32)


def needed(weights: int, length: int, kind: CacheType) -> int:
    cache = kv_cache_bytes(LLAMA_3.layers, length, kind)
    assert cache is not None
    return weights + cache + compute_bytes(WIDTHS, LLAMA_3.layers, length)


@given(memory=st.integers(min_value=0, max_value=80 * GIB))
def test_the_largest_context_fits_and_the_next_one_does_not(memory: int) -> None:
    weights = 5 * GIB
    found = cache_fits(LLAMA_3.layers, 32768, widths=WIDTHS, weights=weights, memory=memory)
    for fit, kind in zip(found, CacheType, strict=True):
        assert fit.fits == (needed(weights, 32768, kind) <= memory)
        if fit.largest_context:
            assert needed(weights, fit.largest_context, kind) <= memory
        assert needed(weights, fit.largest_context + 256, kind) > memory
