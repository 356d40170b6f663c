"""Size of the KV cache, from geometry alone; llama.cpp's own figures are in tests/llama."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ggufext.planning.footprint import CacheType, bytes_per_token, kv_cache_bytes
from planning.facts import LLAMA_3

GIB = 2**30


def test_llama_3_8b_at_8k_holds_one_gib_in_f16() -> None:
    assert kv_cache_bytes(LLAMA_3.layers, 8192, CacheType.F16) == GIB


@pytest.mark.parametrize(("kind", "ratio"), [(CacheType.Q8_0, 34 / 64), (CacheType.Q4_0, 18 / 64)])
def test_quantized_caches_shrink_by_their_block_size(kind: CacheType, ratio: float) -> None:
    full = kv_cache_bytes(LLAMA_3.layers, 8192, CacheType.F16)
    assert full is not None
    assert kv_cache_bytes(LLAMA_3.layers, 8192, kind) == full * ratio


def test_contexts_are_rounded_up_to_256_cells() -> None:
    assert kv_cache_bytes(LLAMA_3.layers, 257, CacheType.F16) == kv_cache_bytes(
        LLAMA_3.layers, 512, CacheType.F16
    )


def test_local_layers_hold_their_window_and_a_micro_batch() -> None:
    local = tuple(replace(layer, window=1024, moves=False) for layer in LLAMA_3.layers)
    assert kv_cache_bytes(local, 131072, CacheType.F16) == kv_cache_bytes(
        LLAMA_3.layers, 1024 + 512, CacheType.F16
    )
    assert bytes_per_token(local, CacheType.F16) == 0


def test_heads_that_no_block_fits_cannot_be_quantized() -> None:
    odd = tuple(replace(layer, key_length=80) for layer in LLAMA_3.layers)
    assert kv_cache_bytes(odd, 8192, CacheType.Q8_0) is None
    assert kv_cache_bytes(odd, 8192, CacheType.F16) is not None
