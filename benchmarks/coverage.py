"""How often intervals hold the truth, and tests reject what is true: by simulation, seeded.

    python benchmarks/coverage.py [--experiments 2000] [--seed 0] [--table scenarios]

Prints one Markdown table. A model's chance to be right on a test row is its mean, plus what the row's group does to all
models, what it does to this model, and what the seed does. Coverage is that of the 95% interval of PGR (Fieller); undetermined
pairs have unbounded intervals, which count as covering, and are counted.

scenarios: 5 seeds; how trainings differ from seed to seed, by the standard deviation of what a seed does and by the number of
test rows. The true PGR is the ratio of expected means, (E[student] - E[supervisor]) / (E[ceiling] - E[supervisor]), collapsed
trainings included: what the means of ever more seeds tend to.
gaps: 3, 5 or 10 seeds, 300 test rows in 100 groups, normal effects of seeds, by the true gap.
levels: two methods of equal expected accuracy; how often the two-way test, the two-way t-test with Satterthwaite's degrees of
freedom, and the paired t-test over seeds reject that, where seeds differ, rows differ, both or neither; 1,200 test rows.
collapse: 5 seeds, a tenth of the trainings of students collapse. Coverage of the PGR of expected means (collapses included) and
of the PGR of sound students, over all experiments, over those without and with a collapsed student, by Fieller's interval, by a
percentile bootstrap over seeds, and by Fieller's interval widened by what collapses could do (see `widened`).
pretrainings: two methods of equal expected accuracy, five seeds over three pretrainings as in the default experiment; how
often the two-way test and the paired t-test reject that, with the seeds of a pretraining as one cluster, and with all seeds as
if they were independent.
tests: two methods for whom the same groups are easy; how often the paired t-test over seeds has p < .05. And two for whom
other groups are easy: the test over seeds speaks of the test rows at hand, the interval over seeds and groups of others too.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta
from scipy.stats import t as student_t

from w2s_mlflow import stats

SEEDS = (3, 5, 10)
GAPS = (0.04, 0.08, 0.16, 0.24)
FLOOR, SHARE = 0.6, 0.5
"""The supervisor's accuracy, and the true PGR; these and the next two are of `gaps` and `tests`."""
ROWS, GROUPS = 300, 100
SHARED, OWN, SEED = 0.12, 0.04, 0.02
"""Half widths of what a group does to all models and to one, and the standard deviation of what a seed does."""

TRAININGS = 5
"""The seeds of an experiment, here and below of `scenarios`."""
MEANS = np.array([0.69, 0.78, 0.87])
"""Supervisor, student and ceiling where no training collapses: about chess-60k and chess-426k on `chess`."""
SEED_SDS = (0.008, 0.02)
TEST_ROWS = (2400, 10000)
GROUP_ROWS = 4
WIDE, NARROW = 0.06, 0.03
"""What a group does to all models and to one (half widths): so small that hardly any chance has to be cut at 1."""
MAJORITY = 0.55
"""The share of the most frequent class."""
Floats = NDArray[np.float64]


class Scenario(NamedTuple):
    """How trainings differ from seed to seed.

    Attributes:
        heavy: seeds' effects are of a t distribution with 3 degrees of freedom, scaled to the same standard deviation.
        inherited: the correlation of a student's effect with that of its supervisor.
        ceiling: the standard deviation of a ceiling's effect, in those of the others.
        collapse: the probability that a training collapses: of supervisor, student and ceiling. Half of the collapsed answer by
            a coin, half with the most frequent class.
    """

    heavy: bool = False
    inherited: float = 0.0
    ceiling: float = 1.0
    collapse: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def truth(self) -> float:
        """The PGR of the expected means."""
        weak, student, ceiling = MEANS + np.array(self.collapse) * ((0.5 + MAJORITY) / 2 - MEANS)
        return stats.pgr(weak, student, ceiling)

    def effects(self, rng: np.random.Generator, deviation: float) -> Floats:
        """What the seed does to each model's mean, by model and seed."""
        shape = len(MEANS), TRAININGS
        effect_MS = rng.standard_t(3, shape) / np.sqrt(3) if self.heavy else rng.normal(size=shape)
        effect_MS[1] = self.inherited * effect_MS[0] + np.sqrt(1 - self.inherited**2) * effect_MS[1]
        effect_MS[2] *= self.ceiling
        return deviation * effect_MS


SCENARIOS = {
    "normal effects": Scenario(),
    "heavy tails": Scenario(heavy=True),
    "inherited noise": Scenario(inherited=0.7),
    "noisy ceilings": Scenario(ceiling=2),
    "a tenth of the students collapse": Scenario(collapse=(0, 0.1, 0)),
    "a tenth of the ceilings collapse": Scenario(collapse=(0, 0, 0.1)),
}


def simulated(scenario: Scenario, deviation: float, rows: int, stream: tuple[int, ...], experiment: int) -> tuple[bool, bool]:
    """Whether one experiment's interval holds the true PGR, and whether it is bounded."""
    rng = np.random.default_rng([*stream, experiment])
    number_N = np.repeat(np.arange(rows // GROUP_ROWS), GROUP_ROWS)
    wide_N = rng.uniform(-WIDE, WIDE, rows // GROUP_ROWS)[number_N]
    narrow_MN = rng.uniform(-NARROW, NARROW, (len(MEANS), rows // GROUP_ROWS))[:, number_N]
    mean_MS = MEANS[:, None] + scenario.effects(rng, deviation)
    right_MSN = rng.random((*mean_MS.shape, rows)) < mean_MS[..., None] + (wide_N + narrow_MN)[:, None]
    majority_N = rng.random(rows) < MAJORITY
    collapsed_MS = rng.random(mean_MS.shape) < np.array(scenario.collapse)[:, None]
    for model, seed in np.argwhere(collapsed_MS):
        right_MSN[model, seed] = majority_N if rng.random() < 0.5 else rng.random(rows) < 0.5
    weak, student, ceiling = (list(right_SN) for right_SN in right_MSN)
    interval = stats.pgr_interval(weak, student, ceiling, number_N)
    return interval.low <= scenario.truth() <= interval.high, interval.status == stats.OK


def answers(rng: np.random.Generator, seeds: int, mean: float, group_N: Floats, spread: float = OWN) -> Floats:
    """Correctness by seed and row of one model.

    Args:
        group_N: what each row's group does to all models.
    """
    model_group_N = np.repeat(rng.uniform(-spread, spread, GROUPS), ROWS // GROUPS)
    chance_SN = mean + group_N + model_group_N + SEED * rng.normal(size=(seeds, 1))
    return (rng.random((seeds, ROWS)) < chance_SN).astype(np.float64)


def groups(rng: np.random.Generator) -> tuple[Floats, NDArray[np.int64]]:
    """What each row's group does to all models, and its number."""
    return np.repeat(rng.uniform(-SHARED, SHARED, GROUPS), ROWS // GROUPS), np.repeat(np.arange(GROUPS), ROWS // GROUPS)


def pgr(seeds: int, gap: float, seed: int, experiment: int) -> tuple[bool, bool]:
    """Whether one experiment's interval holds the true PGR, and whether it is bounded."""
    rng = np.random.default_rng([experiment, seeds, round(1000 * gap), seed])
    group_N, number_N = groups(rng)
    weak, student, ceiling = (answers(rng, seeds, FLOOR + gap * share, group_N) for share in (0, SHARE, 1))
    interval = stats.pgr_interval(list(weak), list(student), list(ceiling), number_N)
    return interval.low <= SHARE <= interval.high, interval.status == stats.OK


def rejected(seeds: int, spread: float, seed: int, experiment: int) -> tuple[bool, bool]:
    """Whether the test over seeds, and the interval over seeds and groups, tell two equal methods apart."""
    rng = np.random.default_rng([experiment, seeds, 7, seed])
    group_N, number_N = groups(rng)
    first, second = (answers(rng, seeds, FLOOR, group_N, spread) for _ in range(2))
    by_seed = stats.paired_t_test(first.mean(axis=1), second.mean(axis=1)).p < 0.05
    sums_SG = (second - first).reshape(seeds, GROUPS, -1).sum(axis=2)
    both = stats.clustered_mean(sums_SG, np.bincount(number_N))
    return by_seed, not both.low <= 0 <= both.high


LEVEL_ROWS, LEVEL_GROUP_ROWS = 1200, 4
NOISE = {"neither": (0.0, 0.0), "seeds": (0.03, 0.0), "rows": (0.0, 0.3), "seeds and rows": (0.02, 0.2)}
EXACT = "seeds and rows, without noise of single answers"
"""A further kind: normal effects of seeds and of groups, of which both give the mean the same variance."""
"""By what differs: standard deviation of what a seed does to one method, half width of what a group does to one method."""


def satterthwaite(cells_SG: Floats, sizes_G: Floats) -> float:
    """The p-value with the two-way variance of `stats.clustered` and Satterthwaite's degrees of freedom, as before."""
    seeds, n_groups = cells_SG.shape
    rows = seeds * sizes_G.sum()
    residual = cells_SG - cells_SG.sum() / rows * sizes_G
    sums = residual.sum(axis=1), residual.sum(axis=0), residual.reshape(-1)
    by_seed, by_group, by_cell = ((part**2).sum() * len(part) / (len(part) - 1) / rows**2 for part in sums)
    variance = max(by_seed + by_group - by_cell, by_seed, by_group)
    spread = by_seed**2 / (seeds - 1) + by_group**2 / (n_groups - 1) + by_cell**2 / (seeds * n_groups - 1)
    return float(2 * student_t.sf(abs(cells_SG.sum() / rows) / np.sqrt(variance), variance**2 / spread))


def level(seeds: int, kind: str, seed: int, experiment: int) -> tuple[bool, ...]:
    """Whether each test rejects the true hypothesis of one experiment."""
    rng = np.random.default_rng([experiment, seeds, [*NOISE, EXACT].index(kind), seed])
    number_N = np.repeat(np.arange(LEVEL_ROWS // LEVEL_GROUP_ROWS), LEVEL_GROUP_ROWS)
    if kind == EXACT:
        of_groups_N = rng.normal(size=LEVEL_ROWS // LEVEL_GROUP_ROWS)[number_N] * np.sqrt(LEVEL_ROWS // LEVEL_GROUP_ROWS)
        second = rng.normal(size=(seeds, 1)) * np.sqrt(seeds) + of_groups_N
        first = np.zeros_like(second)
    else:
        deviation, half_width = NOISE[kind]
        own_MN = rng.uniform(-half_width, half_width, (2, LEVEL_ROWS // LEVEL_GROUP_ROWS))[:, number_N]
        chance_MSN = 0.65 + own_MN[:, None] + deviation * rng.normal(size=(2, seeds, 1))
        first, second = (rng.random(chance_MSN.shape) < chance_MSN).astype(np.float64)
    two_way = stats.two_way_test(list(first), list(second), number_N).p < 0.05
    sums_SG = (second - first).reshape(seeds, -1, LEVEL_GROUP_ROWS).sum(axis=2)
    old = satterthwaite(sums_SG, np.bincount(number_N).astype(float)) < 0.05
    return two_way, old, stats.paired_t_test(first.mean(axis=1), second.mean(axis=1)).p < 0.05


PRETRAININGS = [0, 1, 2, 0, 1]
"""The pretraining of each seed."""
DEVIATIONS = {"seeds": (0.03, 0.0), "pretrainings": (0.0, 0.03), "both": (0.02, 0.02)}
"""By what differs: standard deviations of what a seed, and what a pretraining does to one method."""


def shared(kind: str, seed: int, experiment: int) -> tuple[bool, ...]:
    """Whether each test rejects the true hypothesis of one experiment whose seeds share pretrainings."""
    rng = np.random.default_rng([experiment, list(DEVIATIONS).index(kind), 11, seed])
    number_N = np.repeat(np.arange(LEVEL_ROWS // LEVEL_GROUP_ROWS), LEVEL_GROUP_ROWS)
    of_seeds, of_pretrainings = DEVIATIONS[kind]
    chance_MS1 = 0.65 + of_seeds * rng.normal(size=(2, len(PRETRAININGS), 1))
    chance_MS1 += of_pretrainings * rng.normal(size=(2, max(PRETRAININGS) + 1, 1))[:, PRETRAININGS]
    first, second = (rng.random((2, len(PRETRAININGS), LEVEL_ROWS)) < chance_MS1).astype(np.float64)
    accuracies = first.mean(axis=1), second.mean(axis=1)
    both = [stats.two_way_test(list(first), list(second), number_N, units=units).p < 0.05 for units in (PRETRAININGS, None)]
    return (*both, *(stats.paired_t_test(*accuracies, units=units).p < 0.05 for units in (PRETRAININGS, None)))


def widened(
    weak: Floats, student: Floats, ceiling: Floats, number_N: NDArray[np.int64], collapsed_S: NDArray[np.bool_]
) -> tuple[float, float]:
    """Fieller's interval of the sound seeds at 97.5%, moved by the Clopper-Pearson 97.5% bounds of the rate of collapse.

    A collapsed student answers as the observed ones do or, if there is none, at the share of the most frequent class.
    """
    sound_S = ~collapsed_S
    if not sound_S.any():
        return -np.inf, np.inf
    n, k = len(sound_S), int(collapsed_S.sum())
    low_rate = float(beta.ppf(0.0125, k, n - k + 1)) if k else 0.0
    high_rate = float(beta.ppf(0.9875, k + 1, n - k)) if k < n else 1.0
    interval = stats.pgr_interval(list(weak[sound_S]), list(student[sound_S]), list(ceiling[sound_S]), number_N, 0.975)
    fallen_accuracy = float(student[collapsed_S].mean()) if k else MAJORITY
    fallen = stats.pgr(float(weak.mean()), fallen_accuracy, float(ceiling.mean()))
    bounds = [rate * fallen + (1 - rate) * bound for rate in (low_rate, high_rate) for bound in interval[1:3]]
    return min(bounds), max(bounds)


def collapse(seed: int, deviation: float, rows: int, experiment: int) -> tuple[float, ...]:
    """Whether a student collapsed in one experiment, and which intervals cover which PGR."""
    rng = np.random.default_rng([seed, 11, round(1000 * deviation), rows, experiment])
    number_N = np.repeat(np.arange(rows // GROUP_ROWS), GROUP_ROWS)
    wide_N = rng.uniform(-WIDE, WIDE, rows // GROUP_ROWS)[number_N]
    narrow_MN = rng.uniform(-NARROW, NARROW, (len(MEANS), rows // GROUP_ROWS))[:, number_N]
    scenario = SCENARIOS["a tenth of the students collapse"]
    mean_MS = MEANS[:, None] + scenario.effects(rng, deviation)
    weak, student, ceiling = (rng.random((*mean_MS.shape, rows)) < mean_MS[..., None] + (wide_N + narrow_MN)[:, None]).astype(
        float
    )
    collapsed_S = rng.random(TRAININGS) < scenario.collapse[1]
    for fallen in np.flatnonzero(collapsed_S):
        student[fallen] = rng.random(rows) < (MAJORITY if rng.random() < 0.5 else 0.5)
    truth, sound = scenario.truth(), Scenario().truth()
    fieller = stats.pgr_interval(list(weak), list(student), list(ceiling), number_N)
    means_SM = np.stack([model.mean(axis=1) for model in (weak, student, ceiling)], axis=1)
    drawn = means_SM[rng.integers(TRAININGS, size=(1000, TRAININGS))].mean(axis=1)
    boot = np.quantile((drawn[:, 1] - drawn[:, 0]) / (drawn[:, 2] - drawn[:, 0]), [0.025, 0.975])
    low, high = widened(weak, student, ceiling, number_N, collapsed_S)
    covers = [fieller.low <= truth <= fieller.high, boot[0] <= truth <= boot[1], low <= truth <= high]
    return (
        bool(collapsed_S.any()),
        *map(bool, covers),
        bool(fieller.low <= sound <= fieller.high),
        high - low,
        fieller.high - fieller.low,
    )


Repeat = Callable[[Callable[[int], tuple[float, ...]]], NDArray[np.float64]]
"""What a function of the experiment's number finds in all experiments, one row each."""


def scenarios(repeat: Repeat, seed: int) -> Iterator[str]:
    """Coverage by how trainings differ from seed to seed."""
    yield "| 5 seeds | seed sd | test rows | true PGR | covers it | undetermined | covers it where determined |"
    yield "|---|---|---|---|---|---|---|"
    for (number, (name, scenario)), sd, rows in itertools.product(enumerate(SCENARIOS.items()), SEED_SDS, TEST_ROWS):
        found = repeat(partial(simulated, scenario, sd, rows, (seed, number, round(1000 * sd), rows)))
        covers, determined = found.T == 1
        shares = f"{covers.mean():.3f} | {1 - determined.mean():.3f} | {covers[determined].mean():.3f}"
        yield f"| {name} | {sd} | {rows:,} | {scenario.truth():.3f} | {shares} |"


def gaps(repeat: Repeat, seed: int) -> Iterator[str]:
    """Coverage by the true gap."""
    yield "| seeds | true gap | covers the true PGR | determined |\n|---|---|---|---|"
    for seeds, gap in itertools.product(SEEDS, GAPS):
        outcomes = repeat(partial(pgr, seeds, gap, seed))
        yield f"| {seeds} | {gap:.2f} | {outcomes[:, 0].mean():.3f} | {outcomes[:, 1].mean():.3f} |"


def tests(repeat: Repeat, seed: int) -> Iterator[str]:
    """How often two equal methods are told apart."""
    yield "| seeds | methods find | paired t over seeds | interval over seeds and groups |\n|---|---|---|---|"
    for (spread, label), seeds in itertools.product(((0.0, "the same groups easy"), (OWN, "other groups easy")), SEEDS):
        outcomes = repeat(partial(rejected, seeds, spread, seed))
        yield f"| {seeds} | {label} | {outcomes[:, 0].mean():.3f} | {outcomes[:, 1].mean():.3f} |"


def levels(repeat: Repeat, seed: int) -> Iterator[str]:
    """How often the tests reject a true hypothesis, by what differs."""
    yield "| seeds | what differs | two-way | with Satterthwaite | over seeds |\n|---|---|---|---|---|"
    for seeds, kind in itertools.product(SEEDS, [*NOISE, EXACT]):
        two_way, old, over_seeds = repeat(partial(level, seeds, kind, seed)).mean(axis=0)
        yield f"| {seeds} | {kind} | {two_way:.3f} | {old:.3f} | {over_seeds:.3f} |"


def pretrainings(repeat: Repeat, seed: int) -> Iterator[str]:
    """How often the tests reject a true hypothesis if seeds share pretrainings, by what differs."""
    yield "| what differs | two-way, clusters | two-way, independent | over seeds, clusters | over seeds, independent |"
    yield "|---|---|---|---|---|"
    for kind in DEVIATIONS:
        rejections = repeat(partial(shared, kind, seed)).mean(axis=0)
        yield f"| {kind} | {' | '.join(f'{value:.3f}' for value in rejections)} |"


def collapses(repeat: Repeat, seed: int) -> Iterator[str]:
    """Coverage by intervals where a tenth of the students collapse."""
    yield "| seed sd | test rows | experiments | share | Fieller | bootstrap | widened | sound PGR | width, widened | Fieller |"
    yield "|---|---|---|---|---|---|---|---|---|---|"
    for sd, rows in itertools.product(SEED_SDS, TEST_ROWS):
        found = repeat(partial(collapse, seed, sd, rows)).astype(float)
        any_collapsed = found[:, 0] == 1
        for label, chosen in (
            ("all", any_collapsed | True),
            ("none collapsed", ~any_collapsed),
            ("some collapsed", any_collapsed),
        ):
            shares = " | ".join(f"{value:.3f}" for value in found[chosen][:, 1:5].mean(axis=0))
            widths = " | ".join(f"{value:.2f}" for value in np.median(found[chosen][:, 5:], axis=0))
            yield f"| {sd} | {rows:,} | {label} | {chosen.mean():.2f} | {shares} | {widths} |"


TABLES = {
    "scenarios": scenarios,
    "gaps": gaps,
    "tests": tests,
    "levels": levels,
    "collapse": collapses,
    "pretrainings": pretrainings,
}


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experiments", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--table", choices=TABLES, default="scenarios")
    options = parser.parse_args()
    with ProcessPoolExecutor(2) as workers:

        def repeat(experiment: Callable[[int], tuple[float, ...]]) -> NDArray[np.float64]:
            return np.array(list(workers.map(experiment, range(options.experiments), chunksize=20)), dtype=np.float64)

        for line in TABLES[options.table](repeat, options.seed):
            print(line, flush=True)


if __name__ == "__main__":
    main()
