"""Means with their t intervals: over seeds, over test groups, and two-way clustered over both.

Shape legend: S seeds, G test groups, N test rows. Intervals have a confidence level of 95% unless `level` is given.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, special, stats

LEVEL = 0.95
ROUNDING = 1e-12
"""Differences of accuracies up to this size are treated as rounding errors."""

TINY = 1e-290
"""p-values below this are not refined, because t quantiles of such tails are not reliable."""
ROUNDING_OF_TAILS = 1e-6
"""By how much the logarithms of tail probabilities are widened, so that a root between them is not lost to rounding."""

Floats = NDArray[np.float64]
Units = Sequence[Hashable] | None
"""What each seed shares with other seeds, such as its pretrained checkpoints. Seeds of one unit do not vary independently, so
they are one cluster. None, or one unit for all seeds: each seed is a cluster, and intervals speak of that unit only."""


class Interval(NamedTuple):
    """A mean with its confidence interval."""

    mean: float
    low: float
    high: float

    def named(self, name: str) -> dict[str, float]:
        """Return the mean and its bounds under the keys `name`, `name_low` and `name_high`, which tables and metrics use."""
        return {name: self.mean, f"{name}_low": self.low, f"{name}_high": self.high}


@dataclass(frozen=True)
class ClusteredMean:
    """A mean over rows with its variance, from which the t interval and the p-value follow.

    Attributes:
        variance: the variance of the mean; infinite if it cannot be estimated.
        clusterings: variance and degrees of freedom of each one-way clustering (seeds, test groups), which weight the
            critical value.
        rows_variance: the part of the variance that more seeds would not reduce; NaN with a single seed.
    """

    mean: float
    variance: float
    clusterings: tuple[tuple[float, int], ...]
    rows_variance: float = math.nan

    @property
    def t(self) -> float:
        """The mean in standard errors; NaN if the variance is zero or infinite."""
        return self.mean / math.sqrt(self.variance) if 0 < self.variance < math.inf else math.nan

    def critical(self, tail: float) -> float:
        """Return the critical value of |t|: the t quantiles of the clusterings, weighted by their variances (Cochran 1964).

        Args:
            tail: probability of one tail.
        """
        total = sum(variance for variance, _ in self.clusterings)
        return float(sum(variance / total * -special.stdtrit(df, tail) for variance, df in self.clusterings if variance))

    def interval(self, level: float = LEVEL) -> Interval:
        """Return the t interval. Its width is zero if the variance is."""
        half = self.variance
        if 0 < self.variance < math.inf:
            half = self.critical((1 - level) / 2) * math.sqrt(self.variance)
        return Interval(self.mean, self.mean - half, self.mean + half)

    def p(self) -> float:
        """Return the two-sided p-value of a mean of zero: 1 minus the level of the interval that ends at zero.

        It is NaN if the variance is zero or infinite.
        """
        if not 0 < self.variance < math.inf:
            return math.nan
        t = abs(self.t)
        tails = [float(special.stdtr(df, -t)) for variance, df in self.clusterings if variance]
        low, high = min(tails), max(tails)
        if low < TINY:
            return 2 * high
        bounds = math.log(low) - ROUNDING_OF_TAILS, math.log(high) + ROUNDING_OF_TAILS
        return 2 * math.exp(optimize.brentq(lambda tail: self.critical(math.exp(tail)) - t, *bounds))


def clustered(cells_SG: ArrayLike, sizes_G: ArrayLike, units: Units = None) -> ClusteredMean:
    """Return the mean over rows with its two-way clustered variance.

    The variance is V_seeds + V_groups - V_cells (Cameron, Gelbach & Miller 2011, eq. 2.9), but at least V_seeds and at least
    V_groups. With one seed it is V_groups; with one group it is infinite. The critical value is Cochran's, because
    Satterthwaite's degrees of freedom reject too often if answers have little noise (benchmarks/coverage.py --table levels).
    In its weights, V_seeds is at least the variance that the noise of seed and group together (the interaction) gives to it.

    Args:
        cells_SG: sum of the rows' values for each seed and group.
        sizes_G: number of rows of each group.
        units: the unit of each seed (see `Units`). The seeds of one unit are one cluster.
    """
    cells, sizes = np.asarray(cells_SG, dtype=np.float64), np.asarray(sizes_G, dtype=np.float64)
    groups = cells.shape[1]
    rows = len(cells) * sizes.sum()
    mean = float(cells.sum() / rows)
    if groups == 1:
        return ClusteredMean(mean, math.inf, ())
    residual, shares_U = unit_sums(cells - mean * sizes, units)
    seeds = len(residual)
    v_groups = _cluster_variance(residual.sum(axis=0)) / rows**2
    if seeds == 1:
        return ClusteredMean(mean, v_groups, ((v_groups, groups - 1),))
    v_seeds = _cluster_variance(residual.sum(axis=1)) / rows**2
    v_cells = _cluster_variance(residual.reshape(-1)) / rows**2
    variance = max(v_seeds + v_groups - v_cells, v_seeds, v_groups)
    of_seeds = residual.sum(axis=1, keepdims=True) * sizes / sizes.sum()
    interaction = residual - of_seeds - shares_U[:, None] * residual.sum(axis=0)
    v_noise = float((interaction**2).sum()) * seeds * groups / ((seeds - 1) * (groups - 1)) / rows**2
    # Seeds that agree by chance, to less than the noise of single answers, are no evidence that seeds do not vary.
    clusterings = (max(v_seeds, v_noise), seeds - 1), (v_groups, groups - 1)
    return ClusteredMean(mean, variance, clusterings, max(0.0, v_groups - v_cells))


def unit_sums(values_S: Floats, units: Units) -> tuple[Floats, Floats]:
    """Return the sums of the seeds' values by unit, and each unit's share of the seeds.

    Without units, or if all seeds have one unit, each seed is a unit.
    """
    if units is None or len(set(units)) < 2:
        return values_S, np.full(len(values_S), 1 / len(values_S))
    _, index = np.unique([repr(unit) for unit in units], return_inverse=True)
    sums = np.zeros((index.max() + 1, *values_S.shape[1:]))
    np.add.at(sums, index, values_S)
    return sums, np.bincount(index) / len(index)


def clustered_mean(cells_SG: ArrayLike, sizes_G: ArrayLike, level: float = LEVEL, units: Units = None) -> Interval:
    """Return the mean over rows with its two-way clustered t interval; see `clustered`."""
    return clustered(cells_SG, sizes_G, units).interval(level)


def two_way_interval(values_SN: ArrayLike, groups: ArrayLike, level: float = LEVEL, units: Units = None) -> Interval:
    """Return the mean over seeds and rows with its two-way clustered t interval.

    If all seeds have the same values (a rule, an untrained model), only rows vary, and the interval is that of
    `group_interval`.
    """
    return clustered(*by_group(values_SN, groups), units).interval(level)


def group_interval(values_N: ArrayLike, groups: ArrayLike, level: float = LEVEL) -> Interval:
    """Return the mean of the rows' values with its t interval. The variance of the mean is clustered by group."""
    return two_way_interval(np.asarray(values_N, dtype=np.float64)[None], groups, level)


def seed_interval(values: ArrayLike, level: float = LEVEL, units: Units = None) -> Interval:
    """Return the mean of `values`, one per seed, with its t interval over seeds. For a single seed, the bounds are NaN."""
    values_S = np.asarray(values, dtype=np.float64)
    if len(values_S) < 2:
        return Interval(float(values_S.mean()), math.nan, math.nan)
    return seed_mean(values_S, units).interval(level)


def seed_mean(values: ArrayLike, units: Units = None) -> ClusteredMean:
    """Return the mean of at least two values, one per seed, with its variance over seeds; seeds of one unit are one cluster."""
    values_S = np.asarray(values, dtype=np.float64)
    mean = float(values_S.mean())
    residual, _ = unit_sums(values_S - mean, units)
    variance = _cluster_variance(residual) / len(values_S) ** 2
    return ClusteredMean(mean, variance, ((variance, len(residual) - 1),))


def median_interval(values: ArrayLike, level: float = LEVEL) -> tuple[float, float, float]:
    """Return the median with a distribution-free interval (Conover 1999, section 3.2).

    The bounds are the narrowest symmetric pair of order statistics with a confidence of at least `level`. For fewer than 6
    values there is no such pair at 95%, and the bounds are NaN.
    """
    sorted_N = np.sort(np.asarray(values, dtype=np.float64))
    rank = int(stats.binom.ppf((1 - level) / 2, len(sorted_N), 0.5))
    if rank < 1:
        return float(np.median(sorted_N)), math.nan, math.nan
    return float(np.median(sorted_N)), float(sorted_N[rank - 1]), float(sorted_N[-rank])


def by_group(values_SN: ArrayLike, groups: ArrayLike) -> tuple[Floats, Floats]:
    """Return an array (S, G) of the sums of values per seed and group, and an array (G,) of the numbers of rows per group."""
    _, index = np.unique(np.asarray(groups), return_inverse=True)
    values = np.asarray(values_SN, dtype=np.float64)
    sums = np.stack([np.bincount(index, weights=values_N) for values_N in values]).astype(np.float64)
    return sums, np.bincount(index).astype(np.float64)


def _cluster_variance(sums: Floats) -> float:
    n = len(sums)
    return float((sums**2).sum() * n / (n - 1))
