"""Tests of the difference between two models, and Holm's correction."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from w2s_mlflow.stats.intervals import LEVEL, ROUNDING, ClusteredMean, Floats, Units, by_group, clustered, seed_mean


class PairedTest(NamedTuple):
    """A paired t-test of method minus baseline. `low` and `high` bound the mean difference. `effect_size` is Cohen's d_z."""

    t: float
    p: float
    n: int
    mean_difference: float
    low: float
    high: float
    effect_size: float


def paired_t_test(baseline: ArrayLike, method: ArrayLike, level: float = LEVEL, units: Units = None) -> PairedTest:
    """Return the paired t-test of `method` against `baseline`. Seeds of one unit (see `Units`) are one cluster.

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
    estimate = seed_mean(difference, units)
    interval = estimate.interval(level)
    return PairedTest(estimate.t, estimate.p(), n, mean, interval.low, interval.high, mean / deviation)


class TwoWayTest(NamedTuple):
    """A two-way clustered t-test of method minus baseline. `low` and `high` bound the mean difference.

    It covers the variation between seeds and between test groups. `p` is NaN if the variance is zero or cannot be estimated.
    `rows_variance` is the part of the variance that more seeds do not reduce, and `groups` the number of test groups.
    """

    t: float
    p: float
    mean_difference: float
    low: float
    high: float
    rows_variance: float
    groups: int


def two_way_test(
    baseline: Sequence[ArrayLike],
    method: Sequence[ArrayLike],
    groups: ArrayLike,
    level: float = LEVEL,
    units: Units = None,
) -> TwoWayTest:
    """Return the test of `method` against `baseline` over seeds and test groups.

    Args:
        baseline, method: for each seed, the value (such as the correctness, 0 or 1) of each test row, with the rows and the
            seeds in the same order.
        groups: the group of each test row.
        units: the unit of each seed (see `Units`).
    """
    before_SN, after_SN = (np.asarray(rows, dtype=np.float64) for rows in (baseline, method))
    cells_SG, sizes_G = by_group(after_SN - before_SN, groups)
    return as_test(clustered(cells_SG, sizes_G, units), len(sizes_G), level)


def as_test(mean: ClusteredMean, groups: int, level: float) -> TwoWayTest:
    """Return the test of a mean difference of zero, with the number of test groups."""
    interval = mean.interval(level)
    return TwoWayTest(mean.t, mean.p(), interval.mean, interval.low, interval.high, mean.rows_variance, groups)


def wilcoxon_p(baseline: ArrayLike, method: ArrayLike) -> float:
    """Return the p-value of the two-sided Wilcoxon signed-rank test of matched pairs. For 5 pairs it is at least .0625."""
    difference = np.asarray(method, dtype=np.float64) - np.asarray(baseline, dtype=np.float64)
    ranked = np.round(difference / ROUNDING) * ROUNDING  # differences that are equal up to rounding get the same rank
    return float(stats.wilcoxon(ranked).pvalue) if ranked.any() else 1.0


def holm(p_values: ArrayLike, tests: int = 0) -> Floats:
    """Return p-values adjusted by Holm's step-down method, in the given order. NaN stays NaN and is not counted as a test.

    Args:
        tests: number of tests of the family. Those without a p-value are counted as if their p-value were 1. Default: the
            number of p-values.
    """
    p = np.asarray(p_values, dtype=np.float64)
    tested = np.flatnonzero(np.isfinite(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    adjusted = np.full(p.shape, np.nan)
    factors = max(tests, len(order)) - np.arange(len(order))
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * factors))
    return adjusted
