"""Size of the compute buffers that llama.cpp allocates beside weights and KV cache."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ggufext.planning.kv_cache import DEFAULT_UBATCH, padded_cells

if TYPE_CHECKING:
    from ggufext.header.layers import LayerFacts
    from ggufext.header.widths import Widths

_FLOAT = 4


def compute_bytes(
    widths: Widths,
    layers: tuple[LayerFacts, ...],
    length: int,
    *,
    n_ubatch: int = DEFAULT_UBATCH,
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
    with it in tests/audit/test_memory_log.py.
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
