"""Intervals and tests of the audit: hits and trials in, numbers out; no file, no clock.

Everything is at 95 %. NumPy is loaded when a bootstrap is drawn.
"""

from __future__ import annotations

import math
from collections import defaultdict
from statistics import NormalDist
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy as np
    import numpy.typing as npt

    from ggufext.audit.findings.results import Interval

_TAIL = 0.025
_Z = NormalDist().inv_cdf(1 - _TAIL)

#: A p value below this is called a difference.
SIGNIFICANT = 0.05

#: Resamples of a bootstrap: the error of a 2.5 % quantile is then about a tenth of its tail.
_RESAMPLES = 4000


def wilson_interval(hits: int, trials: int) -> Interval:
    """Wilson's score interval of a proportion.

    Parameters
    ----------
    hits, trials : int
        0 ≤ hits ≤ trials, trials ≥ 1; the trials are independent.

    Returns
    -------
    (float, float)
        In [0, 1]; holds hits/trials; exactly 0 or 1 at the side where there is nothing beyond.

    Source: Wilson, J. Am. Stat. Assoc. 22 (1927), 209.
    """
    if not 0 <= hits <= trials or trials < 1:
        raise ValueError(f"{hits} hits of {trials} trials: expected 0 to {trials} of at least 1")
    share = hits / trials
    spread = _Z * math.sqrt(share * (1 - share) / trials + (_Z / (2 * trials)) ** 2)
    scale = 1 + _Z**2 / trials
    centre = share + _Z**2 / (2 * trials)
    low = 0.0 if hits == 0 else (centre - spread) / scale
    high = 1.0 if hits == trials else (centre + spread) / scale
    return low, high


def difference_interval(hits_a: int, trials_a: int, hits_b: int, trials_b: int) -> Interval:
    """Newcombe's interval of the difference a - b of two independent proportions.

    Returns
    -------
    (float, float)
        In [−1, 1]; holds hits_a/trials_a − hits_b/trials_b.

    Source: Newcombe, Statist. Med. 17 (1998), 873, method 10.
    """
    low_a, high_a = wilson_interval(hits_a, trials_a)
    low_b, high_b = wilson_interval(hits_b, trials_b)
    share_a, share_b = hits_a / trials_a, hits_b / trials_b
    difference = share_a - share_b
    return (
        difference - math.hypot(share_a - low_a, high_b - share_b),
        difference + math.hypot(high_a - share_a, share_b - low_b),
    )


def mcnemar_exact(only_a: int, only_b: int) -> float:
    """McNemar's exact test: two-sided p of the prompts on which two conditions disagree.

    Parameters
    ----------
    only_a, only_b : int
        Prompts that only one of the two answered, ≥ 0. Prompts that both or none answered do not
        count.

    Returns
    -------
    float
        In (0, 1]; 1 without disagreement.

    Source: McNemar, Psychometrika 12 (1947), 153; the binomial tail, doubled, at most 1.
    """
    disagreements = only_a + only_b
    tail = sum(math.comb(disagreements, k) for k in range(min(only_a, only_b) + 1))
    # Whole numbers to the end: 2**disagreements is no float from 1,024 on.
    return 1.0 if 2 * tail >= 2**disagreements else 2 * tail / 2**disagreements


def sign_flip_exact(differences: Iterable[int]) -> float:
    """Permutation test over texts: two-sided p of the texts in which two conditions differ.

    Where the conditions do not differ, those of each text could be exchanged, which turns the sign
    of its difference: p is the share of all such exchanges whose sum lies as far from 0 as the one
    observed. With one answer a text it equals McNemar's exact test.

    Parameters
    ----------
    differences : iterable of int
        Of each text, the answers that only one condition found minus those of only the other.

    Returns
    -------
    float
        In (0, 1]; with n texts that differ at least 2^(1 − n).

    Source: Fisher, The Design of Experiments (1935), section 21; sums counted exactly instead of
    drawn.
    """
    different = [each for each in differences if each]
    ways = {0: 1}
    for size in different:
        grown: dict[int, int] = defaultdict(int)
        for total, count in ways.items():
            grown[total + size] += count
            grown[total - size] += count
        ways = grown
    observed = abs(sum(different))
    as_far = sum(count for total, count in ways.items() if abs(total) >= observed)
    # Whole numbers to the end, as above.
    return as_far / (1 << len(different))


def trials_needed(bound: float) -> int:
    """Fewest trials, all of them hits, whose Wilson lower bound reaches `bound`.

    Parameters
    ----------
    bound : float
        Required lower bound, in (0, 1).
    """
    if not 0 < bound < 1:
        raise ValueError(f"no number of trials proves {bound}: expected a bound between 0 and 1")
    # Wilson's lower bound of n of n is n / (n + z²); the loop absorbs the last rounding.
    trials = max(1, math.floor(_Z**2 * bound / (1 - bound)))
    while wilson_interval(trials, trials)[0] < bound:
        trials += 1
    return trials


def text_resamples(texts: int, *, seed: int) -> npt.NDArray[np.float64]:
    """How often each text is drawn in each bootstrap resample.

    Parameters
    ----------
    texts : int
        Texts to draw from, with replacement, as many as there are; ≥ 1.
    seed : int

    Returns
    -------
    ndarray of float64, shape (4000, texts)
        Whole numbers; each row sums to `texts`.
    """
    import numpy as np

    draws = np.random.default_rng(seed).multinomial(texts, [1 / texts] * texts, size=_RESAMPLES)
    return draws.astype(np.float64)


def resampled_accuracy(
    resamples: npt.NDArray[np.float64], hits: Sequence[int], trials: Sequence[int]
) -> npt.NDArray[np.float64]:
    """Accuracy of a group of answers in each resample of the texts.

    Parameters
    ----------
    resamples : ndarray, shape (resamples, texts)
    hits, trials : sequence of int, shape (texts,)
        Hits and answers that each text gave to the group.

    Returns
    -------
    ndarray of float64, shape (resamples,)
        NaN where no text with an answer was drawn.
    """
    import numpy as np

    answered = resamples @ np.asarray(trials, dtype=np.float64)
    found = resamples @ np.asarray(hits, dtype=np.float64)
    return np.divide(found, answered, out=np.full_like(found, np.nan), where=answered > 0)


def percentile_interval(values: npt.NDArray[np.float64]) -> Interval | None:
    """Middle 95 % of bootstrap values, without NaN; None where none is left."""
    import numpy as np

    known = values[~np.isnan(values)]
    if not known.size:
        return None
    low, high = np.quantile(known, [_TAIL, 1 - _TAIL])
    return float(low), float(high)


def wider(first: Interval, second: Interval | None) -> Interval:
    """The interval that spans both.

    A bootstrap of answers that all agree shrinks to a point, and a Wilson interval takes answers
    from one text for independent: the wider of the two claims least.
    """
    if second is None:
        return first
    return min(first[0], second[0]), max(first[1], second[1])
