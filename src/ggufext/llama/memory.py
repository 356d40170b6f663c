"""What a run needs of memory, what there is of it, and what to give up when it does not fit."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ggufext.errors import EngineError
from ggufext.planning.footprint import CELL_PADDING, CacheType, compute_bytes, kv_cache_bytes
from ggufext.text import binary_size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ggufext.header.layers import LayerFacts
    from ggufext.header.weights import Widths


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """What a run needs and has, bytes, and what was reduced to make it fit, in words.

    Attributes
    ----------
    model, kv_cache, compute : int
        Bytes of weights, cache at the longest length and compute buffers, as llama.cpp allocates
        them.
    process : int
        Bytes of Python, llama.cpp's code and the vocabulary.
    available : int
        Bytes free before the run, of this machine and its devices.
    steps : tuple of str
        What was reduced, a sentence each.
    """

    model: int
    kv_cache: int
    compute: int
    process: int
    available: int
    steps: tuple[str, ...]

    @property
    def needed(self) -> int:
        """All of it together."""
        return self.model + self.kv_cache + self.compute + self.process


#: Tokens of a batch; a micro-batch is never larger.
_LARGEST_BATCH = 512

#: Micro-batches: reuse ends on their boundaries, so short prompts want small ones; below 64 tokens
#: llama.cpp's flash attention on processors is less than half as fast.
_SMALLEST_UBATCH, _LARGEST_UBATCH = 64, 512

_LOGIT_BYTES = 4

#: Python, llama.cpp's code and its small structures; of a vocabulary, its texts and merges.
_PROCESS_BYTES, _TOKEN_BYTES = 64 << 20, 384


@dataclass(frozen=True, slots=True)
class ModelSize:
    """What the memory plan needs to know of a model.

    Attributes
    ----------
    tensors : int
        Bytes of all tensors, of every shard.
    widths : Widths
    layers : tuple of LayerFacts
    """

    tensors: int
    widths: Widths
    layers: tuple[LayerFacts, ...]


@dataclass(frozen=True, slots=True)
class Budget:
    """How a run will use memory.

    Attributes
    ----------
    lengths : tuple of int
        Lengths that can be measured, rising.
    n_ubatch, n_batch : int
    cache_type : CacheType
    flash_attention : bool
    plan : MemoryPlan
    """

    lengths: tuple[int, ...]
    n_ubatch: int
    n_batch: int
    cache_type: CacheType
    flash_attention: bool
    plan: MemoryPlan


def micro_batch(shortest: int) -> int:
    """Micro-batch in tokens for a shortest length: what is lost at its boundaries stays small."""
    size = _SMALLEST_UBATCH
    while size < _LARGEST_UBATCH and size * 64 <= shortest:
        size *= 2
    return size


def plan_memory(
    size: ModelSize,
    *,
    lengths: tuple[int, ...],
    n_ubatch: int,
    cache_type: CacheType,
    flash_attention: bool | None,
    available: int,
    kept_logits: int = 0,
) -> Budget:
    """Fit a run into the memory there is, giving up as little as possible, each thing named.

    Parameters
    ----------
    size : ModelSize
    lengths : tuple of int
        Wanted lengths in tokens, rising.
    n_ubatch : int
        Wanted micro-batch in tokens; compute buffers grow with it.
    cache_type : CacheType
        Wanted type of the KV cache.
    flash_attention : bool or None
        Whether scores are never written out; a quantized cache needs it. None: where memory asks
        for it.
    available : int
        Bytes.
    kept_logits : int
        Tokens whose logits are kept beside those of the last one.

    Raises
    ------
    EngineError
        ``out_of_memory`` when not even the shortest length fits.
    """
    wanted = Budget(
        lengths=lengths,
        n_ubatch=n_ubatch,
        n_batch=max(_LARGEST_BATCH, n_ubatch),
        cache_type=cache_type,
        flash_attention=bool(flash_attention),
        plan=MemoryPlan(size.tensors, 0, 0, 0, available, ()),
    )
    plan = wanted.plan
    for budget in _reductions(size, wanted, may_switch=flash_attention is None):
        plan = _needs(size, budget, kept_logits)
        if plan.needed <= available:
            return replace(budget, plan=plan)
    raise EngineError(
        code="out_of_memory",
        message=f"even length {lengths[0]:,} needs {binary_size(plan.model)} for the model, "
        f"{binary_size(plan.kv_cache)} for the KV cache, {binary_size(plan.compute)} to compute "
        f"and {binary_size(plan.process)} for the process; "
        f"{binary_size(available)} are free; close programs, take a smaller quantization, or point "
        "`check --server` at a machine that holds the model",
    )


def _reductions(size: ModelSize, wanted: Budget, *, may_switch: bool) -> Iterator[Budget]:
    """The wish first, then each step further down."""
    budget = wanted

    def step(said: str, **changes: object) -> Budget:
        plan = replace(budget.plan, steps=(*budget.plan.steps, said))
        return replace(budget, plan=plan, **changes)  # type: ignore[arg-type]

    yield budget
    while budget.n_ubatch > _SMALLEST_UBATCH:
        smaller = budget.n_ubatch // 2
        budget = replace(budget, n_ubatch=smaller)
        yield step(f"micro-batch of {smaller} tokens instead of {wanted.n_ubatch}")
    if budget.n_ubatch < wanted.n_ubatch:
        budget = step(f"micro-batch of {budget.n_ubatch} tokens instead of {wanted.n_ubatch}")
    if may_switch:
        budget = step("flash attention, to save memory", flash_attention=True)
        yield budget
    quantized = kv_cache_bytes(size.layers, CELL_PADDING, CacheType.Q8_0)
    if budget.cache_type is CacheType.F16 and quantized is not None and budget.flash_attention:
        budget = step("KV cache in q8_0 instead of f16", cache_type=CacheType.Q8_0)
        yield budget
    while len(budget.lengths) > 1:
        *kept, dropped = budget.lengths
        budget = step(f"length {dropped:,} left out", lengths=tuple(kept))
        yield budget


def _needs(size: ModelSize, budget: Budget, kept_logits: int) -> MemoryPlan:
    length = budget.lengths[-1]
    # Reuse needs whole caches in sliding-window layers too (swa_full).
    full = tuple(replace(layer, window=None) for layer in size.layers)
    cache = kv_cache_bytes(full, length, budget.cache_type)
    if cache is None:
        raise EngineError(
            code="cache_type_impossible",
            message=f"a KV cache in {budget.cache_type.label} needs heads whose size is a "
            "multiple of 32; take f16",
        )
    return replace(
        budget.plan,
        model=size.tensors,
        kv_cache=cache,
        compute=compute_bytes(
            size.widths,
            size.layers,
            length,
            n_ubatch=budget.n_ubatch,
            flash_attention=budget.flash_attention,
        )
        + _LOGIT_BYTES * kept_logits * size.widths.vocabulary,
        process=_PROCESS_BYTES + _TOKEN_BYTES * size.widths.vocabulary,
    )


def gpu_layers(size: ModelSize, budget: Budget, device_memory: int) -> int:
    """Layers that fit into the devices' free memory with their part of the KV cache; 999: all."""
    free = int(device_memory * 0.9) - budget.plan.compute
    needed = size.tensors + budget.plan.kv_cache
    if needed <= free:
        return 999
    return max(0, free * len(size.layers) // max(needed, 1))
