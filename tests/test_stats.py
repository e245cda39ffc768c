"""PGR and its interval, paired tests and Holm against hand-worked values, scipy, and independent statements."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Iterable
from itertools import combinations, pairwise
from typing import NamedTuple

import numpy as np
import pytest
import scipy.stats
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from w2s_mlflow import stats
from w2s_mlflow.stats import gap_recovered

Floats = NDArray[np.float64]

slow_machine = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

BASELINE = [0.70, 0.72, 0.68, 0.71, 0.69]
METHOD = [0.73, 0.74, 0.72, 0.73, 0.73]
"""Differences .03 .02 .04 .02 .04: mean .03, deviation .01, t = .03 / (.01 / sqrt 5) on 4 degrees of freedom."""


class Data(NamedTuple):
    """Correctness by seed and test row, and the group of each row."""

    weak: Floats
    student: Floats
    ceiling: Floats
    groups: NDArray[np.int64]

    def interval(self, level: float = 0.95) -> stats.PGR:
        return stats.pgr_interval(list(self.weak), list(self.student), list(self.ceiling), self.groups, level)

    def rows(self, order: Iterable[int]) -> Data:
        chosen = list(order)
        return Data(self.weak[:, chosen], self.student[:, chosen], self.ceiling[:, chosen], self.groups[chosen])


def draw(
    seed: int,
    *,
    seeds: int = 5,
    rows: int = 120,
    groups: int = 40,
    means: tuple[float, float, float] = (0.6, 0.72, 0.84),
    spread: float = 0.02,
) -> Data:
    """Weak, student and ceiling with effects of seeds and groups; the true PGR is that of `means`."""
    rng = np.random.default_rng(seed)
    group_N = rng.integers(groups, size=rows) if groups < rows else np.arange(rows)
    shared_N = rng.uniform(-0.12, 0.12, size=groups)[group_N]

    def answers_SN(mean: float) -> Floats:
        own_N = rng.uniform(-0.04, 0.04, size=groups)[group_N]
        chance_SN = mean + shared_N + own_N + spread * rng.normal(size=(seeds, 1))
        return (rng.uniform(size=(seeds, rows)) < chance_SN).astype(np.float64)

    weak, student, ceiling = (answers_SN(mean) for mean in means)
    return Data(weak, student, ceiling, group_N)


def clusters(values_SN: Floats, keys: list[Hashable]) -> Floats:
    """The sums of `values_SN`, less their mean, over the rows that share a key; keys run over seeds, then rows."""
    sums: dict[Hashable, float] = defaultdict(float)
    for key, value in zip(keys, (values_SN - values_SN.mean()).ravel(), strict=True):
        sums[key] += value
    return np.array(list(sums.values()))


def interaction(gain_SN: Floats, gap_SN: Floats, groups: NDArray[np.int64], thetas: Floats) -> Floats:
    """The variance of a sum over rows that seed and group give only together, at each theta: two-way analysis of variance."""
    seeds, names = len(gain_SN), np.unique(groups)

    def cells(values_SN: Floats) -> Floats:
        centred_SN = values_SN - values_SN.mean()
        rest_SN = centred_SN - centred_SN.mean(axis=1, keepdims=True) - centred_SN.mean(axis=0, keepdims=True)
        return np.array([rest_SN[:, groups == name].sum(axis=1) for name in names])

    gain, gap = cells(gain_SN), cells(gap_SN)
    squares = (gain**2).sum() - 2 * thetas * (gain * gap).sum() + thetas**2 * (gap**2).sum()
    return np.asarray(squares * seeds * len(names) / ((seeds - 1) * (len(names) - 1)))


def grid_interval(gain_SN: Floats, gap_SN: Floats, groups: NDArray[np.int64], thetas: Floats) -> tuple[Floats, Floats]:
    """Mean and half width of the two-way clustered interval of gain - theta gap, at each theta."""
    seeds, rows = gain_SN.shape
    levels: list[list[Hashable]] = [[(s, g) for s in range(seeds) for g in groups]]
    levels += [[g for _ in range(seeds) for g in groups], [s for s in range(seeds) for _ in groups]]
    variances, sizes = [], []
    for keys in levels:
        sums = clusters(gain_SN, keys)[:, None] - thetas * clusters(gap_SN, keys)[:, None]
        n = len(sums)
        sizes.append(n)
        variances.append(n / max(1, n - 1) * (sums**2).sum(axis=0) / (seeds * rows) ** 2)
    cell, group, seed = variances
    by_group = scipy.stats.t.ppf(0.975, sizes[1] - 1)
    if seeds == 1:
        variance, critical = group, by_group
    else:
        variance = np.maximum(np.maximum(seed, group), seed + group - cell)
        weight = np.maximum(seed, interaction(gain_SN, gap_SN, groups, thetas) / (seeds * rows) ** 2)
        critical = (weight * scipy.stats.t.ppf(0.975, seeds - 1) + group * by_group) / (weight + group)
    return gain_SN.mean() - thetas * gap_SN.mean(), critical * np.sqrt(variance)


@pytest.mark.parametrize(
    ("weak", "student", "ceiling", "expected"),
    [
        (0.6, 0.7, 0.8, 0.5),
        (0.6, 0.6, 0.8, 0.0),
        (0.6, 0.8, 0.8, 1.0),
        (0.6, 0.5, 0.8, -0.5),
        (0.6, 0.9, 0.8, 1.5),
        (0.8, 0.75, 0.6, 0.25),
    ],
)
def test_pgr_by_hand(weak: float, student: float, ceiling: float, expected: float) -> None:
    assert stats.pgr(weak, student, ceiling) == pytest.approx(expected)


@pytest.mark.parametrize("student", [0.5, 0.7, 0.9])
def test_pgr_without_a_gap_is_undefined(student: float) -> None:
    assert math.isnan(stats.pgr(0.7, student, 0.7))


@pytest.mark.parametrize(
    ("accuracy", "majority", "rows", "near"),
    [
        # standard errors .05, .02, and 0
        (0.6, 0.5, 100, True),
        (0.601, 0.5, 100, False),
        (0.4, 0.5, 100, True),
        (0.839, 0.8, 400, True),
        (0.841, 0.8, 400, False),
        (1.0, 1.0, 400, True),
    ],
)
def test_near_chance_is_up_to_two_standard_errors_above_the_majority(
    accuracy: float, majority: float, rows: int, near: bool
) -> None:
    assert stats.near_chance(accuracy, majority, rows) is near


@pytest.mark.parametrize("seeds", [1, 2, 5])
@pytest.mark.parametrize("groups", [6, 40, 120])
def test_clustered_mean_is_its_definition(seeds: int, groups: int) -> None:
    data = draw(1, seeds=seeds, groups=groups)
    gap_SN = data.ceiling - data.weak
    names = sorted(set(data.groups.tolist()))
    cells_SG = np.array([[gap_SN[s, data.groups == g].sum() for g in names] for s in range(seeds)])
    found = stats.clustered_mean(cells_SG, [(data.groups == g).sum() for g in names])
    mean, half = grid_interval(gap_SN, gap_SN, data.groups, np.zeros(1))
    assert (found.mean, found.low, found.high) == pytest.approx((mean[0], mean[0] - half[0], mean[0] + half[0]))


def test_clustered_mean_by_hand() -> None:
    # Two seeds, three groups of one row each, mean 1/2. Residuals in halves: + - + and - - +; sums by seed 1 and -1, by group
    # 0, -2, 2. In halves squared over 36 rows squared: seeds 2 x 2/1 = 4, groups 8 x 3/2 = 12, cells 6 x 6/5 = 7.2.
    seeds, groups, cells = (halves / 4 / 36 for halves in (4, 12, 7.2))
    variance = seeds + groups - cells
    assert variance < groups  # so the variance of groups alone is the larger
    # Residuals without the means of seeds (1/3, -1/3) and groups (0, -1, 1): 2 -1 -1 and -2 1 1 thirds, whose squares sum to
    # 12/9; times 6 / (1 x 2) is 4, the same as that of seeds. Quantiles of t on 1 and 2 degrees of freedom, weighted 1 to 3.
    half = (12.7062047 + 3 * 4.3026527) / 4 * math.sqrt(groups)
    found = stats.clustered_mean([[1, 0, 1], [0, 0, 1]], [1, 1, 1])
    assert found == pytest.approx((0.5, 0.5 - half, 0.5 + half))


def test_clustered_mean_without_variation_has_no_width() -> None:
    assert stats.clustered_mean([[1, 2], [1, 2]], [2, 4]) == (0.5, 0.5, 0.5)


def test_clustered_mean_of_one_group_has_no_bounds() -> None:
    assert stats.clustered_mean([[1], [2]], [3]) == (0.5, -math.inf, math.inf)


def test_models_without_seeds_have_the_interval_of_their_rows() -> None:
    right_N = draw(4).student[0]
    groups = draw(4).groups
    found = stats.two_way_interval([right_N] * 5, groups)
    assert found == pytest.approx(stats.group_interval(right_N, groups)) and found.high > found.mean


@pytest.mark.parametrize("seeds", [1, 2, 5])
def test_a_p_value_is_the_level_of_the_interval_that_ends_at_zero(seeds: int) -> None:
    for seed in range(5):
        data = draw(seed, seeds=seeds)
        test = stats.two_way_test(list(data.weak), list(data.student), data.groups)
        ends = stats.two_way_test(list(data.weak), list(data.student), data.groups, level=1 - test.p)
        assert ends.low == pytest.approx(0, abs=1e-9) and ends.high == pytest.approx(2 * test.mean_difference)
        assert (test.p < 0.05) == (not test.low <= 0 <= test.high)


def test_a_test_over_test_groups_alone_is_a_t_test_of_one_sample() -> None:
    data = draw(1, seeds=1, groups=120)
    difference_N = (data.student - data.weak)[0]
    expected = scipy.stats.ttest_1samp(difference_N, 0)
    found = stats.two_way_test(list(data.weak), list(data.student), data.groups)
    assert (found.t, found.p) == pytest.approx((expected.statistic, expected.pvalue))


def test_a_test_of_seeds_that_move_all_rows_alike_is_the_paired_t_test() -> None:
    """Rows of a seed are equal, so test groups add no variance."""
    shift = np.array([0.03, 0.02, 0.04, 0.02, 0.04])[:, None] * np.ones((1, 12))
    expected = stats.paired_t_test(BASELINE, METHOD)
    found = stats.two_way_test(list(np.zeros((5, 12))), list(shift), np.arange(12))
    assert (found.t, found.p, found.low, found.high) == pytest.approx((expected.t, expected.p, expected.low, expected.high))


def test_seeds_that_agree_by_chance_are_not_taken_for_one() -> None:
    """Two seeds have the same gain on other rows: the paired t-test has no p, that over test groups alone is sure."""
    before_SN, after_SN = np.zeros((2, 400)), np.zeros((2, 400))
    after_SN[0, :12], after_SN[1, 12:24] = 1, 1
    found = stats.two_way_test(list(before_SN), list(after_SN), np.arange(400))
    alone = stats.group_interval(after_SN.mean(axis=0), np.arange(400))
    assert found.low < 0 < alone.low and found.p > 0.05


def test_a_difference_without_variance_or_with_one_test_group_has_no_p_value() -> None:
    zeros, ones = [[0.0, 0.0]] * 2, [[1.0, 1.0]] * 2
    certain = stats.two_way_test(zeros, ones, ["a", "b"])
    assert math.isnan(certain.p) and certain[2:5] == (1.0, 1.0, 1.0)
    single = stats.two_way_test(zeros, [[1.0, 0.0], [0.0, 0.0]], ["a", "a"])
    assert math.isnan(single.p) and math.isnan(single.t) and single[2:5] == (0.25, -math.inf, math.inf)


def simulated_levels(seed_sd: float, group_half_width: float, experiments: int = 400) -> tuple[float, float]:
    """How often the two-way test and the test over seeds reject a true hypothesis, with five seeds and 60 groups of rows."""
    rejections = []
    for experiment in range(experiments):
        rng = np.random.default_rng([experiment, 3])
        own_MN = rng.uniform(-group_half_width, group_half_width, (2, 60)).repeat(4, axis=1)
        chance_MSN = 0.65 + own_MN[:, None] + seed_sd * rng.normal(size=(2, 5, 1))
        before_SN, after_SN = (rng.random((2, 5, 240)) < chance_MSN).astype(float)
        two_way = stats.two_way_test(list(before_SN), list(after_SN), np.arange(240) // 4)
        rejections.append((two_way.p < 0.05, stats.paired_t_test(before_SN.mean(axis=1), after_SN.mean(axis=1)).p < 0.05))
    both, seeds = np.mean(rejections, axis=0)
    return float(both), float(seeds)


@pytest.mark.parametrize(("seed_sd", "half_width"), [(0.05, 0.0), (0.0, 0.3), (0.03, 0.2)])
def test_the_two_way_test_holds_its_level(seed_sd: float, half_width: float) -> None:
    two_way, over_seeds = simulated_levels(seed_sd, half_width)
    assert two_way <= 0.08  # .05 and three standard errors of 400 experiments
    assert half_width == 0 or over_seeds > 0.1  # which speaks of the present test rows only


def test_a_lower_level_gives_narrower_intervals() -> None:
    # Quantiles of t at 90%: 2.1318468 on 4 degrees of freedom, 2.3533634 on 3
    assert stats.seed_interval([1, 2, 3, 4, 5], 0.9) == pytest.approx((3, 3 - 1.5074433, 3 + 1.5074433))
    half = 2.3533634 * math.sqrt(1 / 12)
    assert stats.group_interval([0, 1, 1, 0], list("abcd"), 0.9) == pytest.approx((0.5, 0.5 - half, 0.5 + half))
    # Of 6, 1 - 14 / 64 = .78 for the 2nd to the 5th
    assert stats.median_interval(range(1, 7), 0.6) == (3.5, 2, 5)
    wide, narrow = (draw(5).interval(level) for level in (0.95, 0.5))
    assert wide.low < narrow.low < narrow.point < narrow.high < wide.high


def test_an_interval_is_named_by_its_bounds() -> None:
    assert stats.Interval(2.0, 1.0, 4.0).named("test/pgr") == {"test/pgr": 2.0, "test/pgr_low": 1.0, "test/pgr_high": 4.0}


def test_an_edge_is_found_however_far_it_is_and_may_be_missing() -> None:
    for direction in (-1.0, 1.0):
        assert gap_recovered._edge(lambda theta: abs(theta) - 1e6, 0.5, direction) == pytest.approx(direction * 1e6)
        assert gap_recovered._edge(lambda theta: -1.0, 0.5, direction) == direction * math.inf
        assert gap_recovered._edge(lambda theta: min(abs(theta) - 3, 0.5), 0.5, direction) == pytest.approx(direction * 3)


def test_an_interval_without_width_is_its_point_in_spite_of_rounding() -> None:
    for direction in (-1.0, 1.0):
        assert gap_recovered._edge(lambda theta: abs(theta - 0.5) + 1e-16, 0.5, direction) == 0.5


@pytest.mark.parametrize(("seeds", "seed"), [(1, 0), (1, 1), (2, 1), (2, 7), (2, 8), (3, 0), (3, 1), (5, 0), (5, 1), (5, 2)])
def test_pgr_interval_is_every_theta_that_the_data_allow(seeds: int, seed: int) -> None:
    data = draw(seed, seeds=seeds, rows=400, groups=130, means=(0.55, 0.7, 0.85))
    thetas = np.arange(-4, 6, 0.001)
    mean, half = grid_interval(data.student - data.weak, data.ceiling - data.weak, data.groups, thetas)
    inside = thetas[np.abs(mean) <= half]
    found = data.interval()
    assert found.status == stats.OK and (found.seeds, found.groups) == (seeds, len(set(data.groups.tolist())))
    assert found.point == pytest.approx(stats.pgr(data.weak.mean(), data.student.mean(), data.ceiling.mean()))
    assert inside.size == round((inside[-1] - inside[0]) / 0.001) + 1  # one piece, away from the ends of the grid
    assert found.low == pytest.approx(inside[0], abs=0.0011) and found.high == pytest.approx(inside[-1], abs=0.0011)


@pytest.mark.parametrize("seeds", [1, 4])
def test_undetermined_exactly_where_the_gap_could_be_zero(seeds: int) -> None:
    statuses = []
    for seed in range(40):
        data = draw(seed, seeds=seeds, rows=60, groups=20, means=(0.6, 0.65, 0.6 + seed / 200))
        gap_SN = data.ceiling - data.weak
        mean, half = grid_interval(gap_SN, gap_SN, data.groups, np.zeros(1))
        found = data.interval()
        assert (found.status == stats.UNDETERMINED) == bool(abs(mean[0]) <= half[0])
        assert (found.status == stats.OK) == math.isfinite(found.low) == math.isfinite(found.high)
        statuses.append(found.status)
    assert set(statuses) == {stats.OK, stats.UNDETERMINED}


@pytest.mark.parametrize("means", [(0.5, 0.6, 0.9), (0.7, 0.7, 0.7)])
def test_status_does_not_look_at_the_student(means: tuple[float, float, float]) -> None:
    data = draw(3, means=means)
    statuses = {data._replace(student=student).interval().status for student in (data.weak, data.ceiling, 1 - data.student)}
    assert len(statuses) == 1


def test_an_undetermined_interval_keeps_its_point() -> None:
    data = draw(0, means=(0.7, 0.7, 0.7))
    found = data.interval()
    assert found.status == stats.UNDETERMINED and (found.low, found.high) == (-math.inf, math.inf)
    assert found.point == stats.pgr(data.weak.mean(), data.student.mean(), data.ceiling.mean())


def test_a_ceiling_below_its_floor_determines_nothing() -> None:
    """A worse student would have the higher PGR."""
    found = draw(2, means=(0.85, 0.7, 0.55), rows=400, groups=130).interval()
    assert found.status == stats.UNDETERMINED and (found.low, found.high) == (-math.inf, math.inf)


def test_interval_covers_the_truth_about_95_times_in_100_at_five_seeds() -> None:
    draws = [draw(seed, rows=150, groups=150, means=(0.6, 0.72, 0.84), spread=0.03).interval() for seed in range(300)]
    covered = np.mean([found.low <= 0.5 <= found.high for found in draws])
    assert 0.91 <= covered <= 0.99
    assert np.mean([found.status == stats.OK for found in draws]) > 0.95


@pytest.mark.parametrize("seeds", [1, 5])
def test_interval_does_not_depend_on_the_order_of_rows_seeds_or_on_names_of_groups(seeds: int) -> None:
    data = draw(5, seeds=seeds)
    expected = data.interval()
    within = sorted(range(120), key=lambda row: (data.groups[row], -row))
    rng = np.random.default_rng(0)
    back = data._replace(weak=data.weak[::-1], student=data.student[::-1], ceiling=data.ceiling[::-1])
    renamed = data._replace(groups=1000 - data.groups)
    for other in (data.rows(within), data.rows(rng.permutation(120)), back, renamed):
        assert other.interval()[:3] == pytest.approx(expected[:3], abs=1e-9)


def test_groups_may_be_names() -> None:
    data = draw(6)
    names = [f"game {group}" for group in data.groups]
    found = stats.pgr_interval(list(data.weak), list(data.student), list(data.ceiling), names)
    assert found[:3] == pytest.approx(data.interval()[:3], abs=1e-9)


def test_identical_gain_and_gap_give_one_without_width() -> None:
    data = draw(7, means=(0.55, 0.7, 0.9))
    assert data._replace(student=data.ceiling).interval()[:4] == pytest.approx((1, 1, 1, stats.OK))
    assert data._replace(student=data.weak).interval()[:4] == pytest.approx((0, 0, 0, stats.OK))


@pytest.mark.parametrize("seeds", [1, 3])
def test_a_single_test_group_cannot_determine_anything(seeds: int) -> None:
    data = draw(8, seeds=seeds, groups=1)
    assert data.interval().status == stats.UNDETERMINED


# --- PGR over seeds ---------------------------------------------------------------------------------------------------


def test_pgr_over_seeds_by_hand() -> None:
    """Gains .10 .10 .16, mean .12 and standard error .02, over a gap of .2 with every seed."""
    found = stats.pgr_over_seeds([0.5, 0.6, 0.4], [0.6, 0.7, 0.56], [0.7, 0.8, 0.6])
    half = 4.302653 * 0.02 / 0.2  # t on 2 degrees of freedom
    assert found[:3] == pytest.approx((0.6, 0.6 - half, 0.6 + half), abs=1e-6)
    assert found[3:] == (stats.OK, 3, 0)


@pytest.mark.parametrize("seed", range(5))
def test_pgr_over_seeds_has_the_roots_of_fieller_s_quadratic(seed: int) -> None:
    rng = np.random.default_rng(seed)
    weak, student, ceiling = (mean + 0.02 * rng.standard_normal(6) for mean in (0.5, 0.6, 0.7))
    gain, gap = student - weak, ceiling - weak
    cov = np.cov(gain, gap) * scipy.stats.t.ppf(0.975, 5) ** 2 / 6
    a, b = gap.mean() ** 2 - cov[1, 1], gain.mean() * gap.mean() - cov[0, 1]
    root = math.sqrt(b**2 - a * (gain.mean() ** 2 - cov[0, 0]))
    assert stats.pgr_over_seeds(weak, student, ceiling)[1:3] == pytest.approx(((b - root) / a, (b + root) / a))


def test_pgr_over_seeds_pairs_them() -> None:
    """Seeds that move all three accuracies alike add nothing to the interval."""
    weak, student, ceiling = np.array([[0.5, 0.6, 0.4], [0.6, 0.7, 0.56], [0.7, 0.8, 0.6]])
    shift = np.array([0.1, -0.2, 0.3])
    moved = stats.pgr_over_seeds(weak + shift, student + shift, ceiling + shift)
    assert moved[1:3] == pytest.approx(stats.pgr_over_seeds(weak, student, ceiling)[1:3])


@pytest.mark.parametrize("accuracies", [([0.5], [0.6], [0.7]), ([0.7, 0.71], [0.6, 0.6], [0.5, 0.52])])
def test_one_seed_or_a_ceiling_below_its_floor_determines_no_pgr_over_seeds(accuracies: tuple[list[float], ...]) -> None:
    weak, student, ceiling = accuracies
    found = stats.pgr_over_seeds(weak, student, ceiling)
    assert (found.status, found.low, found.high) == (stats.UNDETERMINED, -math.inf, math.inf) and math.isfinite(found.point)


# --- differences of PGR -----------------------------------------------------------------------------------------------


def trio(data: Data) -> stats.Trio:
    return stats.Trio(list(data.weak), list(data.student), list(data.ceiling))


def test_a_difference_of_pgr_is_that_of_the_points() -> None:
    data, other = draw(1), draw(2)._replace(groups=draw(1).groups)
    found = stats.pgr_difference(trio(data), trio(other), data.groups)
    assert found.mean_difference == pytest.approx(other.interval().point - data.interval().point)
    assert found.low < found.mean_difference < found.high
    back = stats.pgr_difference(trio(other), trio(data), data.groups)
    assert (back.p, back.t) == pytest.approx((found.p, -found.t))


def test_a_difference_from_a_pgr_of_zero_has_the_delta_method_s_variance() -> None:
    """A student equal to its supervisor has a PGR of zero and no variance of its own."""
    data = draw(3)
    nothing = stats.Trio(list(data.weak), list(data.weak), list(data.ceiling))
    found = stats.pgr_difference(nothing, trio(data), data.groups)
    point, gap = data.interval().point, float((data.ceiling - data.weak).mean())
    influence_SN = data.student - data.weak - point * (data.ceiling - data.weak)
    _, half = grid_interval(influence_SN, influence_SN, data.groups, np.zeros(1))
    assert (found.low, found.high) == pytest.approx((point - half[0] / gap, point + half[0] / gap))


# --- seeds needed -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("effect", "n"),
    # Two-sided paired t-test, alpha .05, power .8: G*Power 3.1 and statsmodels' TTestPower, rounded up
    [(0.2, 199), (0.5, 34), (0.8, 15), (1.0, 10)],
)
def test_seeds_needed_are_those_of_the_reference(effect: float, n: int) -> None:
    assert stats.seeds_needed(effect, stats.Variances(1.0)) == n
    assert stats.seeds_needed(-3 * effect, stats.Variances(9.0)) == n
    assert stats.power(effect, stats.Variances(1.0), n) >= 0.8 > stats.power(effect, stats.Variances(1.0), n - 1)


def test_power_is_how_often_the_test_finds_the_difference() -> None:
    rng = np.random.default_rng(0)
    found = np.asarray(scipy.stats.ttest_1samp(rng.normal(0.9, 1, (8, 20000)), 0).pvalue) < 0.05
    assert stats.power(0.9, stats.Variances(1.0), 8) == pytest.approx(found.mean(), abs=0.01)


def test_power_at_no_difference_is_the_level() -> None:
    assert stats.power(0.0, stats.Variances(2.0), 7) == pytest.approx(0.05)


def test_test_rows_bound_the_power_whatever_the_seeds() -> None:
    wide = stats.Variances(1.0, 0.1, 500)
    assert stats.seeds_needed(0.5, wide) == math.inf and stats.power(0.5, wide, 10**6) < 0.4
    narrow = stats.Variances(1.0, 0.01, 500)
    assert 34 < stats.seeds_needed(0.5, narrow) < 60


def test_power_of_a_two_way_test_is_how_often_it_finds_the_difference() -> None:
    """Eight seeds, 50 groups of one row; normal effects of seeds and groups, without noise of single answers."""
    found = []
    for experiment in range(1500):
        rng = np.random.default_rng([experiment, 8])
        values_SN = 0.5 + rng.normal(0, 0.4, (8, 1)) + rng.normal(0, 0.7, (1, 50))
        found.append(stats.two_way_test(list(np.zeros((8, 50))), list(values_SN), np.arange(50)).p < 0.05)
    expected = stats.power(0.5, stats.Variances(0.4**2, 0.7**2 / 50, 50), 8)
    assert np.mean(found) == pytest.approx(expected, abs=0.04)


# --- tests and corrections --------------------------------------------------------------------------------------------


def test_paired_t_test_by_hand() -> None:
    found = stats.paired_t_test(BASELINE, METHOD)
    assert found.n == 5
    assert found.mean_difference == pytest.approx(0.03)
    assert found.t == pytest.approx(6.7082039325)
    assert found.p == pytest.approx(0.0025702608, rel=1e-6)
    assert (found.low, found.high) == pytest.approx((0.0175833632, 0.0424166368))
    assert found.effect_size == pytest.approx(3.0)


@pytest.mark.parametrize("n", [2, 5, 30])
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_paired_t_test_is_scipy_s(n: int, level: float) -> None:
    rng = np.random.default_rng(n)
    baseline, method = rng.normal(size=n), rng.normal(0.3, size=n)
    expected, found = scipy.stats.ttest_rel(method, baseline), stats.paired_t_test(baseline, method, level)
    bounds = expected.confidence_interval(level)
    assert found[:3] == pytest.approx((expected.statistic, expected.pvalue, n))
    assert (found.low, found.high) == pytest.approx((bounds.low, bounds.high))
    assert found.t == pytest.approx(found.effect_size * math.sqrt(n))


def test_exchanging_the_two_turns_the_sign() -> None:
    there, back = stats.paired_t_test(BASELINE, METHOD), stats.paired_t_test(METHOD, BASELINE)
    assert back.p == there.p
    assert back[3:] == pytest.approx((-there.mean_difference, -there.high, -there.low, -there.effect_size))


@pytest.mark.parametrize("method", [BASELINE, [value + 0.25 for value in BASELINE], [value - 0.1 for value in BASELINE]])
def test_of_differences_without_spread_nothing_is_said_but_their_mean(method: list[float]) -> None:
    found = stats.paired_t_test(BASELINE, method)
    assert found.n == 5 and found.mean_difference == pytest.approx(method[0] - BASELINE[0])
    assert np.isnan([found.t, found.p, found.low, found.high, found.effect_size]).all()


def test_differences_of_the_size_of_rounding_errors_are_none() -> None:
    smallest = stats.ROUNDING
    equal = stats.paired_t_test([0.0, 0.0], [smallest, smallest])
    assert equal.mean_difference == 0 and math.isnan(equal.p)
    assert math.isnan(stats.paired_t_test([0.0, 0.0], [0.0, smallest]).p)
    assert stats.paired_t_test([0.0, 0.0], [0.0, 2 * smallest]).p == pytest.approx(0.5)  # t = 1 on 1 degree of freedom


def test_small_counts_that_differ_by_the_same_do_not_pass_for_certain() -> None:
    """Two seeds, 200 rows, no true difference: before correction p is below .05 about as often as that, never zero."""
    rng = np.random.default_rng(0)
    accuracies = rng.binomial(200, 0.7, (4000, 2, 2)) / 200
    p_values = np.array([stats.paired_t_test(*pair).p for pair in accuracies])
    assert np.nanmin(p_values) > 0 and 0.01 < (np.nan_to_num(p_values, nan=1.0) < 0.05).mean() < 0.06


@pytest.mark.parametrize(
    ("baseline", "method"), [([1.0], [2.0]), ([], []), ([1.0, 2.0], [1.0, 2.0, 3.0]), ([[1.0, 2.0]], [[1.0, 2.0]])]
)
def test_too_few_or_unequal_pairs_are_refused(baseline: list[float], method: list[float]) -> None:
    with pytest.raises(ValueError, match="a paired test needs two lists of equal length with at least 2 values, got"):
        stats.paired_t_test(baseline, method)


def test_wilcoxon_at_five_pairs_ends_at_one_sixteenth() -> None:
    better = [0.71, 0.74, 0.71, 0.75, 0.74]
    assert stats.wilcoxon_p(BASELINE, better) == stats.wilcoxon_p(better, BASELINE) == 0.0625


def test_wilcoxon_by_hand() -> None:
    # ranks 1, 2, 3 with signs - + +: W = 1 or less on either side in 2 of the 8 sign patterns each
    assert stats.wilcoxon_p([0.0, 0.0, 0.0], [-1.0, 2.0, 3.0]) == pytest.approx(0.5)


def test_wilcoxon_gives_equal_differences_one_rank() -> None:
    before, after = [630, 839, 775, 614, 688], [636, 842, 775, 611, 685]
    thousandths = [np.array(counts) / 1000 for counts in (before, after)]
    assert stats.wilcoxon_p(*thousandths) == stats.wilcoxon_p(before, after) == 1.0


@pytest.mark.parametrize("method", [BASELINE, [0.70, 0.72, 0.70, 0.73, 0.68]])
def test_wilcoxon_takes_pairs_that_do_not_differ(method: list[float]) -> None:
    assert 0.0625 <= stats.wilcoxon_p(BASELINE, method) <= 1
    assert stats.wilcoxon_p(BASELINE, BASELINE) == 1


def test_holm_by_hand() -> None:
    # .005 x 4, .01 x 3, .03 x 2, and .04 x 1 lifted to the one before
    assert stats.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


@settings(max_examples=50)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=7))
def test_holm_is_the_closed_test_of_bonferroni(p: list[float]) -> None:
    """A hypothesis is rejected if every family that it is in is (Marcus, Peritz and Gabriel 1976)."""
    families = [family for size in range(1, len(p) + 1) for family in combinations(range(len(p)), size)]
    of_family = {family: min(1.0, len(family) * min(p[row] for row in family)) for family in families}
    closed = [max(value for family, value in of_family.items() if row in family) for row in range(len(p))]
    np.testing.assert_allclose(stats.holm(p), closed, rtol=1e-12)


@pytest.mark.parametrize("n", [1, 5])
def test_a_median_of_few_has_no_interval(n: int) -> None:
    median, low, high = stats.median_interval(range(n))
    assert median == (n - 1) / 2 and math.isnan(low) and math.isnan(high)


def test_the_interval_of_a_median_is_by_hand() -> None:
    """Of 6, 1 - 2 / 64 = .969 for the whole range; of 9, .961 for the 2nd to the 8th; of 17, .951 for the 5th to the 13th."""
    assert stats.median_interval([4, 1, 6, 2, 5, 3]) == (3.5, 1, 6)
    assert stats.median_interval(range(1, 10)) == (5, 2, 8)
    assert stats.median_interval(range(1, 18)) == (9, 5, 13)


def test_rows_of_one_group_count_once() -> None:
    alone = stats.group_interval([0.0, 1.0, 1.0, 0.0], ["a", "b", "c", "d"])
    twice = stats.group_interval([0.0, 1.0, 1.0, 0.0] * 2, ["a", "b", "c", "d"] * 2)
    assert alone == twice and alone.mean == 0.5


def test_holm_counts_tests_of_the_family_that_were_not_made_as_if_they_had_failed() -> None:
    assert stats.holm([0.01, 0.04], tests=4) == pytest.approx(stats.holm([0.01, 0.04, 1, 1])[:2])
    assert stats.holm([0.01, 0.04], tests=1) == pytest.approx(stats.holm([0.01, 0.04]))


def test_holm_does_not_count_what_was_not_tested() -> None:
    found = stats.holm([0.01, math.nan, 0.04, 0.3, math.nan])
    assert found == pytest.approx([0.03, math.nan, 0.08, 0.3, math.nan], nan_ok=True)
    assert stats.holm([]).size == 0


@settings(slow_machine, max_examples=100)
@given(st.lists(st.floats(0, 1) | st.just(math.nan), max_size=20))
def test_holm_keeps_the_order_and_never_lowers(raw: list[float]) -> None:
    adjusted = stats.holm(raw)
    tested = sorted((p, a) for p, a in zip(raw, adjusted, strict=True) if not math.isnan(p))
    assert [math.isnan(p) for p in raw] == [math.isnan(a) for a in adjusted]
    assert all(p <= a <= 1 for p, a in tested)
    assert all(a <= b for (_, a), (_, b) in pairwise(tested))
    assert not tested or tested[0][1] == min(1.0, len(tested) * tested[0][0])


def test_seed_interval_by_hand() -> None:
    # mean 3, deviation sqrt 2.5, half width 2.7764451 sqrt(.5)
    assert stats.seed_interval([1, 2, 3, 4, 5]) == pytest.approx((3, 1.0367568385, 4.9632431615))


def test_two_seeds_have_an_interval() -> None:
    # deviation sqrt .5, half width 12.7062047 sqrt(.5 / 2)
    assert stats.seed_interval([1, 2]) == pytest.approx((1.5, 1.5 - 6.3531024, 1.5 + 6.3531024))


def test_one_seed_has_a_mean_and_no_interval() -> None:
    assert stats.seed_interval([0.7]) == pytest.approx((0.7, math.nan, math.nan), nan_ok=True)


def test_equal_seeds_have_an_interval_without_width() -> None:
    assert stats.seed_interval([0.5, 0.5, 0.5]) == (0.5, 0.5, 0.5)


def test_seeds_of_one_unit_are_one_cluster_by_hand() -> None:
    # Two units of two seeds: their means are .2 and .4. The mean is .3, with a standard error of .1 and one degree of freedom.
    values, units = [0.1, 0.3, 0.4, 0.4], ["a", "a", "b", "b"]
    interval = stats.seed_interval(values, units=units)
    half = float(scipy.stats.t.ppf(0.975, 1)) * 0.1
    assert interval == pytest.approx((0.3, 0.3 - half, 0.3 + half))
    test = stats.paired_t_test([0.0] * 4, values, units=units)
    assert (test.t, test.n, test.low) == pytest.approx((3.0, 4, interval.low))
    assert test.p == pytest.approx(2 * float(scipy.stats.t.sf(3.0, 1)))


@given(seed=st.integers(0, 2**32 - 1), seeds=st.integers(2, 6), copies=st.integers(1, 3))
@settings(slow_machine, max_examples=30)
def test_copies_of_seeds_that_share_a_unit_add_no_evidence(seed: int, seeds: int, copies: int) -> None:
    rng = np.random.default_rng(seed)
    before, after = rng.integers(0, 2, (2, seeds, 40)).astype(float)
    groups = rng.integers(0, 9, 40).tolist()
    once = stats.two_way_test(before, after, groups)
    first, second = (list(np.repeat(rows, copies, axis=0)) for rows in (before, after))
    units = np.repeat(np.arange(seeds), copies).tolist()
    assert stats.two_way_test(first, second, groups, units=units) == pytest.approx(once, nan_ok=True)
    assert stats.two_way_test(before, after, groups, units=list(range(seeds))) == pytest.approx(once, nan_ok=True)
    assert stats.two_way_test(before, after, groups, units=["one"] * seeds) == pytest.approx(once, nan_ok=True)


def test_the_pgr_of_seeds_that_share_units_has_a_wider_interval() -> None:
    rng = np.random.default_rng(0)
    level = np.repeat(rng.normal(0, 0.05, 3), 2)
    weak, student, ceiling = (
        list((rng.random((6, 300)) < (share + by * level)[:, None]).astype(float))
        for share, by in ((0.6, 0.0), (0.7, 1.0), (0.85, 0.0))
    )
    groups, units = list(range(300)), [0, 0, 1, 1, 2, 2]
    apart, shared = (stats.pgr_interval(weak, student, ceiling, groups, units=given) for given in (None, units))
    assert shared.point == apart.point and shared.low < apart.low and shared.high > apart.high
