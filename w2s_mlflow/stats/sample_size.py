"""Power of t-tests over seeds, and the number of seeds that a wanted difference needs, by the noncentral t distribution."""

from __future__ import annotations

import math
from typing import NamedTuple

from scipy import special, stats

POWER, ALPHA = 0.8, 0.05
"""Default power, and default level of the two-sided test."""
LARGEST_N = 100_000
"""Largest number of seeds that is considered."""


class Variances(NamedTuple):
    """What makes a mean difference over seeds vary.

    Attributes:
        seed: variance of the difference of one seed.
        rows: variance of the mean that more seeds do not reduce, because all seeds have the same test rows. Zero for a test
            that speaks of the present test rows only.
        groups: number of test groups from which `rows` was estimated.
    """

    seed: float
    rows: float = 0.0
    groups: int = 2


def power(difference: float, variances: Variances, seeds: int, alpha: float = ALPHA) -> float:
    """Return the probability that a two-sided t-test over `seeds` seeds finds a true mean difference.

    Without variance of rows, this is the power of the paired t-test, with seeds - 1 degrees of freedom. Otherwise the critical
    value is that of `ClusteredMean`, and the noncentral t distribution has the degrees of freedom of Satterthwaite.
    """
    of_seeds = variances.seed / seeds
    total = of_seeds + variances.rows
    if not total:
        return 1.0 if difference else alpha
    spread = of_seeds**2 / (seeds - 1) + variances.rows**2 / (variances.groups - 1)
    df, shift = total**2 / spread, abs(difference) / math.sqrt(total)
    quantiles = -special.stdtrit([seeds - 1, variances.groups - 1], alpha / 2)
    critical = (of_seeds * quantiles[0] + variances.rows * quantiles[1]) / total
    return float(stats.nct.sf(critical, df, shift) + stats.nct.cdf(-critical, df, shift))


def seeds_needed(difference: float, variances: Variances, wanted: float = POWER, alpha: float = ALPHA) -> float:
    """Return the least number of seeds with which `power` reaches `wanted`; infinite if no number up to LARGEST_N does."""
    low, high = 1, 2
    while power(difference, variances, high, alpha) < wanted:
        low, high = high, 2 * high
        if high > LARGEST_N:
            return math.inf
    while high - low > 1:  # the power is below `wanted` at `low` (or low is 1) and not at `high`
        middle = (low + high) // 2
        low, high = (middle, high) if power(difference, variances, middle, alpha) < wanted else (low, middle)
    return high
