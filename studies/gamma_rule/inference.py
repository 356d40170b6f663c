"""The protocol's intervals, tests and words; pure. Needs scipy and statsmodels."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

import numpy as np
from scipy import stats

if TYPE_CHECKING:
    from collections.abc import Sequence

LEVEL = 0.95
SIGNIFICANT = 0.05
_RESAMPLES = 4000


class Verdict(Enum):
    """What a primary comparison says of the γ rule against a rival."""

    BETTER = "better"
    WORSE = "worse"
    SAME = "the same"
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True)
class Paired:
    """A mean of paired differences.

    Attributes
    ----------
    units : int
        Texts or models.
    mean, low, high : float
        With its 95 % t interval.
    p : float
        Of the paired t test, two-sided.
    """

    units: int
    mean: float
    low: float
    high: float
    p: float

    def verdict(self, p: float, *, smallest: float, higher_is_better: bool) -> Verdict:
        """The protocol's word for it.

        Parameters
        ----------
        p : float
            Holm's.
        smallest : float
            Smallest difference of interest, > 0.
        higher_is_better : bool
            Of what was measured: True for keys, False for loss.
        """
        if p < SIGNIFICANT and abs(self.mean) >= smallest:
            good = (self.mean > 0) == higher_is_better
            return Verdict.BETTER if good else Verdict.WORSE
        if -smallest < self.low and self.high < smallest:
            return Verdict.SAME
        return Verdict.UNDECIDED


def paired(differences: Sequence[float]) -> Paired | None:
    """Mean of differences with its t interval and test; None of fewer than two.

    Differences that are all alike have an interval of no width, and p 0, or 1 where they are 0.
    """
    values = np.asarray(differences, dtype=float)
    if len(values) < 2:
        return None
    mean, error = float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))
    freedom = len(values) - 1
    reach = float(stats.t.ppf((1 + LEVEL) / 2, freedom)) * error
    if error > 0:
        p = 2 * float(stats.t.sf(abs(mean) / error, freedom))
    else:
        p = 1.0 if mean == 0 else 0.0
    return Paired(len(values), mean, mean - reach, mean + reach, p)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p values, in the order given.

    Source: Holm, Scand. J. Statist. 6 (1979), 65.
    """
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def slope(x: Sequence[float], y: Sequence[float]) -> float | None:
    """Least squares slope of y on x; None where x does not vary."""
    if len(x) < 2 or max(x) == min(x):
        return None
    return float(np.polyfit(x, y, 1)[0])


def slope_interval(
    groups: Sequence[Sequence[tuple[float, float]]], *, seed: int = 0
) -> tuple[float, float] | None:
    """95 % interval of the slope from a bootstrap over points (x, y), each group by itself.

    None where no group has two points: what is drawn from one is always the same. A group of one
    beside others adds nothing to the width.
    """
    if all(len(group) < 2 for group in groups):
        return None
    rng = np.random.default_rng(seed)
    slopes = []
    for _ in range(_RESAMPLES):
        drawn = [
            group[int(index)]
            for group in groups
            if group
            for index in rng.integers(len(group), size=len(group))
        ]
        found = slope([x for x, _ in drawn], [y for _, y in drawn])
        if found is not None:
            slopes.append(found)
    if len(slopes) < _RESAMPLES / 2:
        return None
    low, high = np.quantile(slopes, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def block_interval(blocks: Sequence[float], *, seed: int = 0) -> tuple[float, float] | None:
    """95 % interval of a mean from a bootstrap over blocks of tokens; None of fewer than two."""
    values = np.asarray(blocks, dtype=float)
    if len(values) < 2:
        return None
    rng = np.random.default_rng(seed)
    means = values[rng.integers(len(values), size=(_RESAMPLES, len(values)))].mean(axis=1)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def main_effects(
    differences: Sequence[float], bases: Sequence[int], heads: Sequence[int]
) -> tuple[float, float, float]:
    """P values of base, head size and their interaction: analysis of variance, type II.

    Parameters
    ----------
    differences : sequence of float
        One a model.
    bases, heads : sequence of int
        Of the same models; at least two models in some combination.
    """
    import pandas as pd
    from statsmodels.formula.api import ols
    from statsmodels.stats.anova import anova_lm

    data = pd.DataFrame({"difference": differences, "base": bases, "head": heads})
    fitted = ols("difference ~ C(base) * C(head)", data).fit()
    p_values = anova_lm(fitted, typ=2)["PR(>F)"]
    return tuple(float(p) for p in p_values.iloc[:3])  # type: ignore[return-value]
