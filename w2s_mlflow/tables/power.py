"""Power: how many seeds a wanted difference between a method and the baseline, or its supervisor, needs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from w2s_mlflow import stats
from w2s_mlflow.tables import PAIR, _comparison, paired_tests, pgr

WANTED = {"accuracy": (0.01, 0.02), "pgr": (0.05, 0.1)}
"""Differences to plan for, by metric."""
CAPTION = (
    f"Seeds needed to find a true difference of `wanted` with {stats.POWER:.0%} power at p < {stats.ALPHA:g} (two-sided, "
    "uncorrected), planned from the spread of n finished seeds by the noncentral t distribution. `seeds` is for the test over "
    "seeds and test groups; it is infinite if the present test rows are too few, however many the seeds. `seeds_only` is for "
    "the paired t-test over seeds, whose differences have the standard deviation `sd`. `power` is that of the two-way test "
    "with the present n. An sd from 5 seeds is uncertain: its 95% interval is from .6 to 2.9 times its value. PGR is planned "
    "for only if it is determined for the pair."
)
FRAMES = ("outcomes",)
COLUMNS = [*PAIR[:5], "metric", "baseline", "method", "n", "sd", "wanted", "seeds", "seeds_only", "power"]


def table(outcomes: pd.DataFrame) -> pd.DataFrame:
    """Return one row per pair of models, comparison and wanted difference."""
    students = outcomes[outcomes["weak_accuracy"].notna()]
    rows = [
        dict(zip(PAIR, key, strict=True)) | row for key, group in students.groupby(PAIR, sort=False) for row in _plans(group)
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def _plans(pair: pd.DataFrame) -> Iterator[dict[str, Any]]:
    methods = dict(iter(pair.groupby(paired_tests.name(pair), sort=False)))
    baseline = methods.get("baseline")
    for name, rows in methods.items():
        if name == "baseline":
            before = _comparison.accuracies(rows, "weak")
            yield from _planned("accuracy", "supervisor", name, _comparison.difference(before, _comparison.accuracies(rows)))
        elif baseline is not None:
            test = _comparison.difference(_comparison.accuracies(baseline), _comparison.accuracies(rows))
            yield from _planned("accuracy", "baseline", name, test)
            if pgr.comparable(pair) and pgr.interval(baseline).status == stats.OK:
                yield from _planned("pgr", "baseline", name, _comparison.pgr_difference(baseline, rows))


def _planned(metric: str, baseline: str, method: str, test: dict[str, Any] | None) -> Iterator[dict[str, Any]]:
    """Yield one row per wanted difference; none if the spread over seeds is unknown."""
    if test is None or not test["sd"] > stats.ROUNDING:
        return
    sd, n, rows = test["sd"], test["n"], test["rows_variance"]
    both, alone = stats.Variances(sd**2, rows, max(2, test["groups"])), stats.Variances(sd**2)
    for wanted in WANTED[metric]:
        row = {"metric": metric, "baseline": baseline, "method": method, "n": n, "sd": sd, "wanted": wanted}
        row |= {"seeds": stats.seeds_needed(wanted, both), "seeds_only": stats.seeds_needed(wanted, alone)}
        yield row | {"power": stats.power(wanted, both, n)}


def sentences(table: pd.DataFrame) -> Iterator[str]:
    """Yield, for each comparison, the numbers of seeds to plan, for the report."""
    keys = [*PAIR[:5], "metric", "baseline", "method"]
    for key, rows in table.groupby(keys, sort=False):
        row = dict(zip(keys, key, strict=True))
        setting = " ".join(str(row[name]) for name in ("task", "head", "other_options") if row[name])
        plans = [f"{wanted:g} needs {_count(seeds)}" for wanted, seeds in zip(rows["wanted"], rows["seeds"], strict=True)]
        yield (
            f"{setting} {row['weak']}->{row['strong']}, {row['method']} minus {row['baseline']}, {row['metric']}: "
            f"{', '.join(plans)}."
        )


def _count(seeds: float) -> str:
    return "more test rows" if seeds == float("inf") else f"{seeds:.0f} seeds"
