"""How often intervals hold the truth, and tests reject what is true: by simulation, seeded.

    python benchmarks/coverage.py [--experiments 2000]

An experiment has 3, 5 or 10 seeds, and 300 test rows in 100 groups. A model's chance to be right on a row is its mean, plus
what the row's group does to all models, what it does to this model, and what the seed does; the true PGR is that of the
means.

PGR: how often Fieller's 95% interval covers it; unbounded intervals (undetermined) count as covering, and are counted.
Comparison: two methods for whom the same groups are easy; how often the paired t-test over seeds has p < .05. And two for
whom other groups are easy: the test over seeds speaks of the test rows at hand, the interval over seeds and groups of others
as well. Prints two tables.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import numpy as np
from numpy.typing import NDArray

from w2s_mlflow import stats

SEEDS = (3, 5, 10)
GAPS = (0.04, 0.08, 0.16, 0.24)
FLOOR, SHARE = 0.6, 0.5
"""The supervisor's accuracy, and the true PGR."""
ROWS, GROUPS = 300, 100
SHARED, OWN, SEED = 0.12, 0.04, 0.02
"""The half widths of what a group does to all models and to one, and the standard deviation of what a seed does."""
Floats = NDArray[np.float64]


def answers(rng: np.random.Generator, seeds: int, mean: float, group_N: Floats, own: float = OWN) -> Floats:
    """Correctness by seed and row of one model.

    Args:
        group_N: what each row's group does to all models.
    """
    own_N = np.repeat(rng.uniform(-own, own, GROUPS), ROWS // GROUPS)
    chance_SN = mean + group_N + own_N + SEED * rng.normal(size=(seeds, 1))
    return (rng.random((seeds, ROWS)) < chance_SN).astype(np.float64)


def groups(rng: np.random.Generator) -> tuple[Floats, NDArray[np.int64]]:
    """What each row's group does to all models, and its number."""
    return np.repeat(rng.uniform(-SHARED, SHARED, GROUPS), ROWS // GROUPS), np.repeat(np.arange(GROUPS), ROWS // GROUPS)


def pgr(seeds: int, gap: float, experiment: int) -> tuple[bool, bool]:
    """Whether one experiment's interval holds the true PGR, and whether it is bounded."""
    rng = np.random.default_rng([experiment, seeds, round(1000 * gap)])
    group_N, number_N = groups(rng)
    weak, student, ceiling = (answers(rng, seeds, FLOOR + gap * share, group_N) for share in (0, SHARE, 1))
    found = stats.pgr_interval(list(weak), list(student), list(ceiling), number_N)
    return found.low <= SHARE <= found.high, found.status == stats.OK


def rejected(seeds: int, own: float, experiment: int) -> tuple[bool, bool]:
    """Whether the test over seeds, and the interval over seeds and groups, tell two equal methods apart."""
    rng = np.random.default_rng([experiment, seeds, 7])
    group_N, number_N = groups(rng)
    first, second = (answers(rng, seeds, FLOOR, group_N, own) for _ in range(2))
    by_seed = stats.paired_t_test(first.mean(axis=1), second.mean(axis=1)).p < 0.05
    sums_SG = (second - first).reshape(seeds, GROUPS, -1).sum(axis=2)
    both = stats.clustered_mean(sums_SG, np.bincount(number_N))
    return by_seed, not both.low <= 0 <= both.high


def tables(experiments: int) -> Iterator[str]:
    """The lines of both tables."""
    with ProcessPoolExecutor(2) as workers:
        yield "| seeds | true gap | covers the true PGR | determined |\n|---|---|---|---|"
        for seeds, gap in itertools.product(SEEDS, GAPS):
            found = np.array(list(workers.map(partial(pgr, seeds, gap), range(experiments), chunksize=100)))
            yield f"| {seeds} | {gap:.2f} | {found[:, 0].mean():.3f} | {found[:, 1].mean():.3f} |"
        yield "\n| seeds | methods find | paired t over seeds | interval over seeds and groups |\n|---|---|---|---|"
        for (own, what), seeds in itertools.product(((0.0, "the same groups easy"), (OWN, "other groups easy")), SEEDS):
            found = np.array(list(workers.map(partial(rejected, seeds, own), range(experiments), chunksize=100)))
            yield f"| {seeds} | {what} | {found[:, 0].mean():.3f} | {found[:, 1].mean():.3f} |"


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experiments", type=int, default=2000)
    for line in tables(parser.parse_args().experiments):
        print(line, flush=True)


if __name__ == "__main__":
    main()
