"""From sums of attention to curves and the exponents of their decay; no file, no clock."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from ggufext.attention.results import AttentionCurve, Decay

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[np.float64]

#: Ranges of distances, where there are enough distances for so many.
_RANGES = 24

#: Fewest points of a fit.
_FEWEST_POINTS = 4

#: Neighbouring query rows that are drawn together, as they read nearly the same text; fewer where
#: that would leave less than so many blocks.
_BLOCK, _FEWEST_BLOCKS = 8, 8

_RESAMPLES = 1000

#: Tails of a 95 % interval.
_TAILS = (0.025, 0.975)


def distance_edges(largest: int) -> tuple[int, ...]:
    """Ranges of equal width in log distance, 1 to `largest` tokens, as `LayerGroup.edges`."""
    exact = np.geomspace(1, largest + 1, _RANGES + 1)
    return tuple(int(edge) for edge in np.unique(np.round(exact)))


def curves(sums: Array, edges: tuple[int, ...], seed: int) -> list[AttentionCurve]:
    """Mean attention of several heads by distance, and the mean of all as the last.

    Parameters
    ----------
    sums : array of shape (rows, heads, ranges + 3)
        Of every query row, as `ggufext.llama.attention.AttentionReader.read` gives them.
    edges : tuple of int
    seed : int
        Of the bootstrap.
    """
    sums = np.concatenate([sums, sums.mean(axis=1, keepdims=True)], axis=1)
    mean = sums.mean(axis=0)
    widths = np.diff(edges)
    attention = mean[:, 1:-2] / widths
    resampled = _resampled(sums[:, :, 1:-2], seed) / widths
    half = len(widths) // 2
    parts = (slice(None), slice(None, half), slice(half, None))
    return [
        AttentionCurve(
            attention=tuple(attention[head].tolist()),
            itself=float(mean[head, 0]),
            beyond=float(mean[head, -2]),
            sink=float(mean[head, -1]),
            **{
                name: _decay(attention[head], resampled[:, head], edges, part)
                for name, part in zip(("decay", "near", "far"), parts, strict=True)
            },
        )
        for head in range(len(mean))
    ]


def _resampled(sums: Array, seed: int) -> Array:
    """Means over rows of blocks drawn with replacement: resamples × heads × ranges."""
    blocks = max(len(sums) // _BLOCK, _FEWEST_BLOCKS)
    # Blocks of equal weight; the rows are in the order of their positions.
    means = np.stack([block.mean(axis=0) for block in np.array_split(sums, blocks)])
    drawn = np.random.default_rng(seed).multinomial(blocks, [1 / blocks] * blocks, size=_RESAMPLES)
    return np.asarray(np.tensordot(drawn / blocks, means, axes=1))


def _decay(attention: Array, resampled: Array, edges: tuple[int, ...], part: slice) -> Decay | None:
    chosen = np.arange(len(attention))[part]
    # Nothing at all is what lies beyond a window, or below what float32 holds.
    chosen = chosen[attention[chosen] > 0]
    if len(chosen) < _FEWEST_POINTS:
        return None
    x = np.array([mean_log(edges[i], edges[i + 1]) for i in chosen])
    slope = (x - x.mean()) / ((x - x.mean()) ** 2).sum()
    y = np.log(attention[chosen])
    gamma = -float(slope @ y)
    residual = y - y.mean() + gamma * (x - x.mean())
    spread = float(((y - y.mean()) ** 2).sum())
    with np.errstate(divide="ignore", invalid="ignore"):
        again = -np.log(resampled[:, chosen]) @ slope
    interval = None
    if np.isfinite(again).all():
        low, high = np.quantile(again, _TAILS)
        interval = (float(low), float(high))
    return Decay(
        first=edges[chosen[0]],
        last=edges[chosen[-1] + 1] - 1,
        gamma=gamma,
        interval=interval,
        r_squared=1.0 - float((residual**2).sum()) / spread if spread else 1.0,
    )


def mean_log(start: int, end: int) -> float:
    """Mean of ln d over the distances start … end − 1."""
    return (math.lgamma(end) - math.lgamma(start)) / (end - start)
