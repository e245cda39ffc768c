"""Performance gap recovered (PGR) with its interval, paired tests and Holm's correction, in numpy and scipy.

Shape legend: S seeds, G test groups, N test rows. Intervals have a confidence level of 95% unless `level` is given.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, stats

LEVEL = 0.95
ROUNDING = 1e-12
"""Differences of accuracies up to this size are treated as rounding errors."""
OK, UNDETERMINED = "ok", "undetermined"

Floats = NDArray[np.float64]


def pgr(weak: float, student: float, ceiling: float) -> float:
    """Return the performance gap recovered (eq. 3), (P_ws - P_w) / (P_s - P_w), or NaN if P_s and P_w are equal.

    Args:
        weak: P_w, the accuracy of the weak supervisor (the floor).
        student: P_ws, the accuracy of the student.
        ceiling: P_s, the accuracy of the strong ceiling.
    """
    return (student - weak) / (ceiling - weak) if ceiling != weak else math.nan


def near_chance(accuracy: float, majority: float, rows: int) -> bool:
    """Return whether an accuracy on `rows` rows is at most two standard errors above the majority-class accuracy.

    Args:
        majority: the share of the most frequent class, in [0, 1].
    """
    return accuracy <= majority + 2 * math.sqrt(majority * (1 - majority) / rows)


class PGR(NamedTuple):
    """PGR with its interval.

    `status` is `ok` if the whole interval of the gap P_s - P_w is above zero. Otherwise it is `undetermined`: the ceiling may
    be less accurate than the supervisor, and a worse student would then have a higher PGR. `groups` is the number of test
    groups, or 0 if the interval covers only the variation between seeds.
    """

    point: float
    low: float
    high: float
    status: str
    seeds: int
    groups: int


class Interval(NamedTuple):
    """A mean, its confidence interval, and the degrees of freedom of the interval."""

    mean: float
    low: float
    high: float
    df: float

    def named(self, name: str) -> dict[str, float]:
        """Return the mean and its bounds under the keys `name`, `name_low` and `name_high`, which tables and metrics use."""
        return {name: self.mean, f"{name}_low": self.low, f"{name}_high": self.high}


def pgr_interval(
    weak: Sequence[ArrayLike],
    student: Sequence[ArrayLike],
    ceiling: Sequence[ArrayLike],
    groups: ArrayLike,
    level: float = LEVEL,
) -> PGR:
    """Return the PGR of mean accuracies over seeds, with Fieller's interval.

    The interval contains every theta for which the mean of (P_ws - P_w) - theta (P_s - P_w) does not differ significantly from
    zero. The variance of this mean is clustered by seed and by test group (see `clustered_mean`). With a single seed, the
    variance covers only the variation between test groups.

    Args:
        weak, student, ceiling: for each seed, the correctness (0 or 1) of each test row, with the rows in the same order.
        groups: the group of each test row.

    Returns:
        The point estimate, computed from mean accuracies, and the interval. If the status is `undetermined`, the bounds of the
        interval are infinite.
    """
    weak_SN, student_SN, ceiling_SN = (np.asarray(rows, dtype=np.float64) for rows in (weak, student, ceiling))
    gain_SG, sizes_G = _by_group(student_SN - weak_SN, groups)
    gap_SG, _ = _by_group(ceiling_SN - weak_SN, groups)
    seeds, n_groups = gain_SG.shape
    point = pgr(float(weak_SN.mean()), float(student_SN.mean()), float(ceiling_SN.mean()))

    def mean(theta: float) -> Interval:
        return clustered_mean(gain_SG - theta * gap_SG, sizes_G, level)

    return PGR(point, *_fieller(mean, clustered_mean(gap_SG, sizes_G, level), point), seeds, n_groups)


def pgr_over_seeds(weak_S: ArrayLike, student_S: ArrayLike, ceiling_S: ArrayLike, level: float = LEVEL) -> PGR:
    """Return the PGR of mean accuracies over seeds, with Fieller's interval, from the accuracies of the three models.

    Each array has one accuracy per seed, in the same order of seeds. Unlike `pgr_interval`, this function needs no test rows,
    but the interval does not cover the variation between test groups. With a single seed, the status is `undetermined`.
    """
    weak, student, ceiling = (np.asarray(values, dtype=np.float64) for values in (weak_S, student_S, ceiling_S))
    gain_S, gap_S = student - weak, ceiling - weak
    point = pgr(float(weak.mean()), float(student.mean()), float(ceiling.mean()))

    def mean(theta: float) -> Interval:
        return seed_interval(gain_S - theta * gap_S, level)

    return PGR(point, *_fieller(mean, seed_interval(gap_S, level), point), len(gain_S), 0)


def _fieller(mean: Callable[[float], Interval], gap: Interval, point: float) -> tuple[float, float, str]:
    """Return the bounds and the status of a PGR.

    Args:
        mean: function of theta that returns the interval of the mean of (P_ws - P_w) - theta (P_s - P_w).
        gap: the interval of the mean gap P_s - P_w.
    """
    if not gap.low > 0:
        return -math.inf, math.inf, UNDETERMINED

    def excess(theta: float) -> float:
        """Return a number that is negative if theta is inside the interval and positive if it is outside."""
        interval = mean(theta)
        return max(interval.low, -interval.high)

    return _edge(excess, point, -1.0), _edge(excess, point, 1.0), OK


def clustered_mean(cells_SG: ArrayLike, sizes_G: ArrayLike, level: float = LEVEL) -> Interval:
    """Return the mean over rows with its two-way clustered t interval.

    The variance is V_seeds + V_groups - V_cells (Cameron, Gelbach & Miller 2011, eq. 2.9), but at least V_seeds and at least
    V_groups. The degrees of freedom are Satterthwaite's. With one seed the variance is V_groups; with one group the bounds are
    infinite.

    Args:
        cells_SG: sum of the rows' values for each seed and group.
        sizes_G: number of rows of each group.
    """
    cells, sizes = np.asarray(cells_SG, dtype=np.float64), np.asarray(sizes_G, dtype=np.float64)
    seeds, groups = cells.shape
    rows = seeds * sizes.sum()
    mean = float(cells.sum() / rows)
    if groups == 1:
        return Interval(mean, -math.inf, math.inf, 0)
    residual = cells - mean * sizes
    by_group = _cluster_variance(residual.sum(axis=0)) / rows**2
    if seeds == 1:
        return _t_interval(mean, by_group, groups - 1, level)
    by_seed = _cluster_variance(residual.sum(axis=1)) / rows**2
    by_cell = _cluster_variance(residual.reshape(-1)) / rows**2
    variance = max(by_seed + by_group - by_cell, by_seed, by_group)
    spread = by_seed**2 / (seeds - 1) + by_group**2 / (groups - 1) + by_cell**2 / (seeds * groups - 1)
    return _t_interval(mean, variance, variance**2 / spread if spread else math.inf, level)


def group_interval(values_N: ArrayLike, groups: ArrayLike, level: float = LEVEL) -> Interval:
    """Return the mean of the rows' values with its t interval. The variance of the mean is clustered by group."""
    cells_SG, sizes_G = _by_group(np.asarray(values_N, dtype=np.float64)[None], groups)
    return clustered_mean(cells_SG, sizes_G, level)


def seed_interval(values: ArrayLike, level: float = LEVEL) -> Interval:
    """Return the mean of `values`, one per seed, with its t interval over seeds. For a single seed, the bounds are NaN."""
    values_S = np.asarray(values, dtype=np.float64)
    if len(values_S) < 2:
        return Interval(float(values_S.mean()), math.nan, math.nan, 0)
    return _t_interval(float(values_S.mean()), float(values_S.var(ddof=1)) / len(values_S), len(values_S) - 1, level)


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


class PairedTest(NamedTuple):
    """A paired t-test of method minus baseline. `low` and `high` bound the mean difference. `effect_size` is Cohen's d_z."""

    t: float
    p: float
    n: int
    mean_difference: float
    low: float
    high: float
    effect_size: float


def paired_t_test(baseline: ArrayLike, method: ArrayLike, level: float = LEVEL) -> PairedTest:
    """Return the paired t-test (scipy.stats.ttest_rel) of `method` against `baseline`.

    Each array has one value per unit (a seed or a task), with the units in the same order. If all differences are equal, which
    is common for accuracies over few seeds, their variance cannot be estimated, and every field except `n` and
    `mean_difference` is NaN.

    Raises:
        ValueError: fewer than two pairs, or unequal lengths.
    """
    before, after = np.asarray(baseline, dtype=np.float64), np.asarray(method, dtype=np.float64)
    if before.shape != after.shape or before.ndim != 1 or len(before) < 2:
        raise ValueError(
            f"a paired test needs two lists of equal length with at least 2 values, got shapes {before.shape} and {after.shape}"
        )
    difference = after - before
    mean, deviation, n = float(difference.mean()), float(difference.std(ddof=1)), len(difference)
    if np.ptp(difference) <= ROUNDING:
        return PairedTest(math.nan, math.nan, n, 0.0 if abs(mean) <= ROUNDING else mean, math.nan, math.nan, math.nan)
    result = stats.ttest_rel(after, before)
    interval = result.confidence_interval(level)
    bounds = float(interval.low), float(interval.high)
    return PairedTest(float(result.statistic), float(result.pvalue), n, mean, *bounds, mean / deviation)


def wilcoxon_p(baseline: ArrayLike, method: ArrayLike) -> float:
    """Return the p-value of the two-sided Wilcoxon signed-rank test of matched pairs. For 5 pairs it is at least .0625."""
    difference = np.asarray(method, dtype=np.float64) - np.asarray(baseline, dtype=np.float64)
    ranked = np.round(difference / ROUNDING) * ROUNDING  # differences that are equal up to rounding get the same rank
    return float(stats.wilcoxon(ranked).pvalue) if ranked.any() else 1.0


def holm(p_values: ArrayLike) -> Floats:
    """Return p-values adjusted by Holm's step-down method, in the given order. NaN stays NaN and is not counted as a test."""
    p = np.asarray(p_values, dtype=np.float64)
    tested = np.flatnonzero(np.isfinite(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    adjusted = np.full(p.shape, np.nan)
    factors = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * factors))
    return adjusted


def _by_group(values_SN: Floats, groups: ArrayLike) -> tuple[Floats, Floats]:
    """Return an array (S, G) of the sums of values per seed and group, and an array (G,) of the numbers of rows per group."""
    _, index = np.unique(np.asarray(groups), return_inverse=True)
    sums = np.stack([np.bincount(index, weights=values) for values in values_SN]).astype(np.float64)
    return sums, np.bincount(index).astype(np.float64)


def _cluster_variance(sums: Floats) -> float:
    n = len(sums)
    return float((sums**2).sum() * n / (n - 1))


def _t_interval(mean: float, variance: float, df: float, level: float) -> Interval:
    half = float(stats.t.ppf((1 + level) / 2, df)) * math.sqrt(variance) if variance else 0.0
    return Interval(mean, mean - half, mean + half, df)


def _edge(excess: Callable[[float], float], point: float, direction: float) -> float:
    """Return one bound of the interval: the theta on one side of the point estimate at which `excess` becomes positive.

    Args:
        direction: 1 for the upper bound, -1 for the lower bound. The bound is infinite if `excess` never becomes positive.
    """
    step = 1.0
    while excess(point + direction * step) <= 0:
        step *= 2
        if step > 1e9:
            return direction * math.inf
    if excess(point) >= 0:  # the variance is zero: the interval is a single point
        return point
    return float(optimize.brentq(excess, point, point + direction * step))
