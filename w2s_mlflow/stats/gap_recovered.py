"""Performance gap recovered (PGR) with Fieller's interval, and differences of two PGRs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize

from w2s_mlflow.stats.intervals import LEVEL, Floats, Interval, Units, by_group, clustered, clustered_mean, seed_interval
from w2s_mlflow.stats.paired import TwoWayTest, as_test

OK, UNDETERMINED = "ok", "undetermined"


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


def pgr_interval(
    weak: Sequence[ArrayLike],
    student: Sequence[ArrayLike],
    ceiling: Sequence[ArrayLike],
    groups: ArrayLike,
    level: float = LEVEL,
    units: Units = None,
) -> PGR:
    """Return the PGR of mean accuracies over seeds, with Fieller's interval.

    The interval contains every theta for which the mean of (P_ws - P_w) - theta (P_s - P_w) does not differ significantly from
    zero. The variance of this mean is clustered by seed and by test group (see `clustered_mean`). With a single seed, the
    variance covers only the variation between test groups.

    Args:
        weak, student, ceiling: for each seed, the correctness (0 or 1) of each test row, with the rows in the same order.
        groups: the group of each test row.
        units: the unit of each seed (see `Units`).

    Returns:
        The point estimate, computed from mean accuracies, and the interval. If the status is `undetermined`, the bounds of the
        interval are infinite.
    """
    weak_SN, student_SN, ceiling_SN = (np.asarray(rows, dtype=np.float64) for rows in (weak, student, ceiling))
    gain_SG, sizes_G = by_group(student_SN - weak_SN, groups)
    gap_SG, _ = by_group(ceiling_SN - weak_SN, groups)
    seeds, n_groups = gain_SG.shape
    point = pgr(float(weak_SN.mean()), float(student_SN.mean()), float(ceiling_SN.mean()))

    def mean(theta: float) -> Interval:
        return clustered_mean(gain_SG - theta * gap_SG, sizes_G, level, units)

    return PGR(point, *_fieller(mean, clustered_mean(gap_SG, sizes_G, level, units), point), seeds, n_groups)


def pgr_over_seeds(
    weak_S: ArrayLike, student_S: ArrayLike, ceiling_S: ArrayLike, level: float = LEVEL, units: Units = None
) -> PGR:
    """Return the PGR of mean accuracies over seeds, with Fieller's interval, from the accuracies of the three models.

    Each array has one accuracy per seed, in the same order of seeds. Unlike `pgr_interval`, this function needs no test rows,
    but the interval does not cover the variation between test groups. With a single seed, the status is `undetermined`.
    """
    weak, student, ceiling = (np.asarray(values, dtype=np.float64) for values in (weak_S, student_S, ceiling_S))
    gain_S, gap_S = student - weak, ceiling - weak
    point = pgr(float(weak.mean()), float(student.mean()), float(ceiling.mean()))

    def mean(theta: float) -> Interval:
        return seed_interval(gain_S - theta * gap_S, level, units)

    return PGR(point, *_fieller(mean, seed_interval(gap_S, level, units), point), len(gain_S), 0)


class Trio(NamedTuple):
    """Correctness (0 or 1) of a supervisor, a student and their ceiling, each by seed and test row."""

    weak: Sequence[ArrayLike]
    student: Sequence[ArrayLike]
    ceiling: Sequence[ArrayLike]


def pgr_difference(baseline: Trio, method: Trio, groups: ArrayLike, level: float = LEVEL, units: Units = None) -> TwoWayTest:
    """Return the test of one PGR minus another over seeds and test groups, by the delta method.

    Each PGR is computed from mean accuracies over seeds. The rows' contributions to a PGR are (gain - PGR * gap) / mean gap;
    their difference has the two-way clustered variance of `clustered`. Both gaps must be clearly above zero (status `ok`).

    Args:
        baseline, method: answers to the same test rows, with the seeds in the same order.
        groups: the group of each test row.
        units: the unit of each seed (see `Units`).
    """
    (before, before_SN), (after, after_SN) = (_contributions(trio) for trio in (baseline, method))
    cells_SG, sizes_G = by_group(after_SN - before_SN, groups)
    return as_test(replace(clustered(cells_SG, sizes_G, units), mean=after - before), len(sizes_G), level)


def _contributions(trio: Trio) -> tuple[float, Floats]:
    """Return the PGR of mean accuracies, and each row's contribution to its error. The contributions have the mean zero."""
    weak_SN, student_SN, ceiling_SN = (np.asarray(rows, dtype=np.float64) for rows in trio)
    gap = float((ceiling_SN - weak_SN).mean())
    point = float((student_SN - weak_SN).mean()) / gap
    return point, (student_SN - weak_SN - point * (ceiling_SN - weak_SN)) / gap


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
