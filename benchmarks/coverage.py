"""How often intervals hold the truth, and tests reject what is true: by simulation, seeded.

    python benchmarks/coverage.py [--experiments 2000] [--seed 0] [--table scenarios]

Prints one Markdown table. A model's chance to be right on a test row is its mean, plus what the row's group does to all
models, what it does to this model, and what the seed does. Coverage is that of the 95% interval of PGR (Fieller); undetermined
pairs have unbounded intervals, which count as covering, and are counted.

scenarios: 5 seeds; how trainings differ from seed to seed, by the standard deviation of what a seed does and by the number of
test rows. The true PGR is the ratio of expected means, (E[student] - E[supervisor]) / (E[ceiling] - E[supervisor]), collapsed
trainings included: what the means of ever more seeds tend to.
gaps: 3, 5 or 10 seeds, 300 test rows in 100 groups, normal effects of seeds, by the true gap.
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


Repeat = Callable[[Callable[[int], tuple[bool, bool]]], NDArray[np.bool_]]
"""What a function of the experiment's number finds in all experiments: two columns."""


def scenarios(repeat: Repeat, seed: int) -> Iterator[str]:
    """Coverage by how trainings differ from seed to seed."""
    yield "| 5 seeds | seed sd | test rows | true PGR | covers it | undetermined | covers it where determined |"
    yield "|---|---|---|---|---|---|---|"
    for (number, (name, scenario)), sd, rows in itertools.product(enumerate(SCENARIOS.items()), SEED_SDS, TEST_ROWS):
        covers, determined = repeat(partial(simulated, scenario, sd, rows, (seed, number, round(1000 * sd), rows))).T
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


TABLES = {"scenarios": scenarios, "gaps": gaps, "tests": tests}


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experiments", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--table", choices=TABLES, default="scenarios")
    options = parser.parse_args()
    with ProcessPoolExecutor(2) as workers:

        def repeat(experiment: Callable[[int], tuple[bool, bool]]) -> NDArray[np.bool_]:
            return np.array(list(workers.map(experiment, range(options.experiments), chunksize=20)))

        for line in TABLES[options.table](repeat, options.seed):
            print(line, flush=True)


if __name__ == "__main__":
    main()
