"""Means over texts with intervals, and distances of distributions: numbers in, numbers out.

Everything is at 95 %. NumPy is loaded when it is needed.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ggufext.audit.findings.statistics import percentile_interval

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ggufext.audit.findings.results import Interval

#: From so many texts on an interval is for texts like them; from fewer that would be a guess.
TEXTS_DRAWN = 5

#: See `ggufext.audit.findings.statistics`.
_RESAMPLES = 4000


def mean_interval(texts: Sequence[Sequence[float]], *, seed: int) -> tuple[float, Interval | None]:
    """Mean over texts of the mean of each, and its interval.

    With `TEXTS_DRAWN` texts or more a bootstrap draws texts, and of each drawn one its values: the
    interval is for texts like these. With fewer it draws the values of each text, and the interval
    is for these texts.

    Parameters
    ----------
    texts : sequence of sequence of float
        Values of each text, which do not lean on each other: means of blocks, differences of such
        means. At least one value a text.
    seed : int

    Returns
    -------
    float
    (float, float) or None
        None where there is a single value in all.

    Source: Davison and Hinkley, Bootstrap Methods and their Application (1997), section 3.8; the
    deviations are widened by √(n / (n − 1)), since those of n drawn ones from their own mean are
    too small by that.
    """
    import numpy as np

    means = [math.fsum(values) / len(values) for values in texts]
    mean = math.fsum(means) / len(means)
    draws_texts = len(texts) >= TEXTS_DRAWN
    sizes = np.array([len(values) for values in texts])
    fewest = len(texts) if draws_texts else sizes.max()
    if fewest < 2:
        return mean, None
    rng = np.random.default_rng(seed)
    padded = np.zeros((len(texts), sizes.max()))
    for row, values in zip(padded, texts, strict=True):
        row[: len(values)] = values
    total = np.zeros(_RESAMPLES)
    for index in range(len(texts)):
        text = rng.integers(len(texts), size=_RESAMPLES) if draws_texts else np.array([index])
        size = sizes[text, None]
        place = (rng.random((_RESAMPLES, sizes.max())) * size).astype(np.intp)
        counted = np.arange(sizes.max()) < size
        total += (padded[text[:, None], place] * counted).sum(axis=1) / size[:, 0]
    widened = math.sqrt(fewest / (fewest - 1))
    return mean, percentile_interval(mean + widened * (total / len(texts) - mean))


def divergence(native: bytes, other: bytes, vocabulary: int) -> tuple[list[float], list[bool]]:
    """How far the distributions of a condition are from native's, position by position.

    Parameters
    ----------
    native, other : bytes
        Float32, shape (positions, vocabulary): natural logarithms of probabilities.
    vocabulary : int

    Returns
    -------
    list of float
        Kullback–Leibler divergence of `other` from `native`, nats, ≥ 0.
    list of bool
        Whether both expect the same token most.

    Source: Kullback and Leibler, Ann. Math. Statist. 22 (1951), 79.
    """
    import numpy as np

    p, q = (
        np.frombuffer(each, np.float32).reshape(-1, vocabulary).astype(np.float64)
        for each in (native, other)
    )
    far = (np.exp(p) * (p - q)).sum(axis=1)
    # Rounded to float32 the two need not sum to the same.
    return np.maximum(far, 0.0).tolist(), (p.argmax(axis=1) == q.argmax(axis=1)).tolist()
