"""The contexts that a condition is asked in: what llama.cpp's process is told to load."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ggufext.llama.machine import usable_processors
from ggufext.llama.settings import ContextSettings, LoadRequest
from ggufext.planning.footprint import padded_cells

if TYPE_CHECKING:
    from pathlib import Path

    from ggufext.audit.conditions import ResolvedCondition
    from ggufext.audit.request import LocalSettings
    from ggufext.llama.memory import Budget

#: Bytes of weights from which on a micro-batch is worth more than one thread.
_SMALL_MODEL = 64 << 20

#: llama.cpp's value for "where the devices can".
_WHERE_POSSIBLE = -1


def contexts(
    path: Path,
    condition: ResolvedCondition,
    budget: Budget,
    settings: LocalSettings,
    *,
    gpu_layers: int,
) -> list[tuple[tuple[int, ...], LoadRequest]]:
    """Lengths that share a context, and what to load for them, the shortest first.

    Parameters
    ----------
    path : Path
        The model file.
    """
    cache = budget.cache_type.label
    threads = settings.threads or _usual_threads(budget.plan.model)
    flash_attention = int(budget.flash_attention)
    if budget.flash_attention and settings.flash_attention is None:
        flash_attention = _WHERE_POSSIBLE
    return [
        (
            lengths,
            LoadRequest(
                path=condition.path or path,
                context=ContextSettings(
                    n_ctx=padded_cells(lengths[-1]),
                    n_batch=budget.n_batch,
                    n_ubatch=budget.n_ubatch,
                    n_threads=threads,
                    n_threads_batch=threads,
                    type_k=cache,
                    type_v=cache,
                    flash_attn_type=flash_attention,
                    # Windows would forget cells that the next prompt reuses.
                    swa_full=True,
                ),
                kv_overrides=dict(condition.kv_overrides),
                gpu_layers=gpu_layers,
                self_extend=condition.self_extend,
            ),
        )
        for lengths in _sharing(condition, budget.lengths)
    ]


def _sharing(condition: ResolvedCondition, lengths: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Lengths that may share a context: longrope rotates short contexts otherwise than long."""
    border = condition.short_context
    if border is None:
        return [lengths]
    short = tuple(length for length in lengths if padded_cells(length) <= border)
    long = lengths[len(short) :]
    return [group for group in (short, long) if group]


def _usual_threads(model: int) -> int:
    """All processors, but one for a small model: its threads would wait more than they compute."""
    return 1 if model < _SMALL_MODEL else usable_processors()
