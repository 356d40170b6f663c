from __future__ import annotations

from dataclasses import replace

import pytest

from ggufext.errors import EngineError
from ggufext.header.layers import LayerFacts
from ggufext.header.weights import Widths
from ggufext.llama.memory import Budget, ModelSize, gpu_layers, micro_batch, plan_memory
from ggufext.planning.footprint import CacheType

MIB = 1 << 20

LAYER = LayerFacts(
    window=None, freq_base=1e4, moves=True, head_count_kv=8, key_length=128, value_length=128
)
SIZE = ModelSize(
    tensors=4000 * MIB,
    widths=Widths(vocabulary=128_000, embedding=4096, feed_forward=14_336, heads=32),
    layers=(LAYER,) * 32,
)
CACHE_32K = 4096 * MIB  # 32 layers × 2 × 8 × 128 values × 2 bytes × 32768 tokens


def budget(
    available: int,
    *,
    flash_attention: bool | None = True,
    size: ModelSize = SIZE,
    kept_logits: int = 0,
) -> Budget:
    return plan_memory(
        size,
        lengths=(4096, 8192, 32_768),
        n_ubatch=128,
        cache_type=CacheType.F16,
        flash_attention=flash_attention,
        available=available,
        kept_logits=kept_logits,
    )


def test_logits_that_are_kept_are_counted_with_what_computes_them() -> None:
    plan, keeping = budget(64_000 * MIB).plan, budget(64_000 * MIB, kept_logits=1000).plan
    assert keeping.compute - plan.compute == 1000 * 128_000 * 4
    assert keeping.needed - plan.needed == keeping.compute - plan.compute


def test_plan_names_model_cache_and_what_is_free() -> None:
    plan = budget(64_000 * MIB).plan
    assert (plan.model, plan.kv_cache) == (4000 * MIB, CACHE_32K)
    assert plan.compute > 0
    assert plan.available == 64_000 * MIB
    assert plan.steps == ()


def test_micro_batch_is_reduced_before_the_cache_is_quantized() -> None:
    steps = budget(6500 * MIB).plan.steps
    assert steps[0] == "micro-batch of 64 tokens instead of 128"
    assert "q8_0" in steps[1]


def test_cache_is_quantized_before_a_length_is_left_out() -> None:
    chosen = budget(7000 * MIB)
    assert chosen.cache_type is CacheType.Q8_0
    assert chosen.lengths == (4096, 8192, 32_768)


def test_longest_lengths_are_left_out_last_and_each_is_named() -> None:
    chosen = budget(5000 * MIB)
    assert chosen.lengths == (4096, 8192)
    assert chosen.plan.steps[-1] == "length 32,768 left out"


def test_cache_is_not_quantized_without_flash_attention() -> None:
    assert budget(7000 * MIB, flash_attention=False).cache_type is CacheType.F16


def test_flash_attention_comes_on_for_memory_only() -> None:
    plenty = budget(64_000 * MIB, flash_attention=None)
    assert not plenty.flash_attention
    assert plenty.plan.steps == ()
    little = budget(8400 * MIB, flash_attention=None)
    assert little.flash_attention
    assert "flash attention" in little.plan.steps[-1]
    assert little.cache_type is CacheType.F16
    assert little.lengths == (4096, 8192, 32_768)


def test_too_little_for_the_shortest_length_is_refused_with_the_sum() -> None:
    with pytest.raises(EngineError, match=r"3\.91 GiB for the model") as refused:
        budget(3000 * MIB)
    assert refused.value.code == "out_of_memory"


def test_all_layers_go_to_a_device_that_holds_them() -> None:
    chosen = budget(64_000 * MIB)
    assert gpu_layers(SIZE, chosen, 64_000 * MIB) == 999
    assert 0 < gpu_layers(SIZE, chosen, 6000 * MIB) < 32
    assert gpu_layers(SIZE, chosen, 0) == 0


@pytest.mark.parametrize(("shortest", "tokens"), [(64, 64), (2048, 64), (8192, 256), (10**6, 512)])
def test_micro_batch_is_small_beside_the_shortest_length(shortest: int, tokens: int) -> None:
    assert micro_batch(shortest) == tokens


def test_a_quantized_cache_that_no_block_fits_is_refused() -> None:
    odd = replace(SIZE, layers=(replace(LAYER, key_length=80),))
    with pytest.raises(EngineError, match="multiple of 32; take f16") as refused:
        plan_memory(
            odd,
            lengths=(4096,),
            n_ubatch=64,
            cache_type=CacheType.Q8_0,
            flash_attention=True,
            available=1 << 40,
        )
    assert refused.value.code == "cache_type_impossible"
