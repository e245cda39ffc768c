"""Paired tests (Table 3): each method against its supervisor, its ceiling, and the baseline, zero-shot and self-trained models.

Within a task, models are paired by seed: supervisor, student and ceiling of one seed share their data. Tests cover the
variation between seeds and between test groups. Across five or more tasks the unit is the task, averaged over its pairs of
models and seeds.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import pandas as pd

from w2s_mlflow import stats
from w2s_mlflow.tables import IMPORTED, PAIR, _comparison, pgr

FRAMES = ("outcomes",)
REFERENCES = ("baseline", "zero_shot", "self_training")
TASKS = 5
"""Minimum number of tasks for a test across tasks."""
ALL = "(all)"


class Family(NamedTuple):
    """A question that several tests answer together: one baseline against some methods, by one metric.

    Holm's correction is over these tests of one task, pair of models, head and setting, whatever else has been run.
    """

    question: str
    metric: str
    baseline: str
    methods: tuple[str, ...]

    def holds(self, row: pd.Series) -> bool:
        """Return whether a row of the table is one of the family's tests."""
        return (row["metric"], row["baseline"]) == (self.metric, self.baseline) and row["method"] in self.methods


ENHANCED = ("confidence", "bootstrap", "generative", "full")
FAMILIES = (
    Family("do the methods raise accuracy", "accuracy", "baseline", ENHANCED),
    Family("do the methods raise PGR", "pgr", "baseline", ENHANCED),
)
"""Table 3 of the paper, with the full method. The family of the main claim is in tables/claim.py."""
CAPTION = (
    "Paired tests. Mean difference with its 95% interval, t and p: within a task, over seeds and test groups (two-way "
    "clustered); for imported runs, over seeds alone; across five or more tasks, over tasks. `p_seeds` is the p of the paired "
    "t-test over seeds, which speaks of the present test rows only; `effect_size` is its d_z, and the Wilcoxon signed-rank p, "
    "over the same pairs, is at least .0625 for n = 5. Holm's p is over the tests of the row's `family` for one pair of models "
    "and setting; tests of the family without runs count as failed, and tests of no family have no Holm's p (those of the main "
    "claim are in the table `claim`). PGR is compared only if it is determined for the pair. `failed_ceilings` counts the "
    "seeds whose ceiling did not learn."
)
COLUMNS = [*PAIR[:5], "metric", "baseline", "method", "unit", "n", "mean_difference", "low", "high", "t", "p", "p_holm"]
COLUMNS += ["family", "p_seeds", "effect_size", "p_wilcoxon", "failed_ceilings"]


def table(outcomes: pd.DataFrame) -> pd.DataFrame:
    """Return one row per comparison of two accuracies (or PGRs), matched by seed or by task."""
    students = outcomes[outcomes["weak_accuracy"].notna()]
    rows = [
        dict(zip(PAIR, key, strict=True)) | row | {"failed_ceilings": int(group.groupby("seed")["ceiling_failed"].any().sum())}
        for key, group in students.groupby(PAIR, sort=False)
        for row in _comparisons(group)
    ]
    for _, group in students.groupby(students["head"] == IMPORTED):
        rows += _across(group)
    return _with_holm(pd.DataFrame(rows, columns=[*dict.fromkeys([*PAIR, *COLUMNS])]))[COLUMNS]


def _with_holm(frame: pd.DataFrame) -> pd.DataFrame:
    """Fill the columns `family` and `p_holm`."""
    frame = frame.assign(family="", p_holm=float("nan"))
    for family in FAMILIES:
        tests = frame[frame.apply(family.holds, axis=1).astype(bool)] if len(frame) else frame
        for _, rows in tests.groupby(PAIR, sort=False, dropna=False):
            frame.loc[rows.index, "family"] = family.question
            frame.loc[rows.index, "p_holm"] = stats.holm(rows["p"].to_numpy(dtype=float), len(family.methods))
    return frame


def name(rows: pd.DataFrame) -> pd.Series:
    """Return, for each row, the name of the method and the options that distinguish it from other rows of the same method."""
    return (rows["method"] + " " + rows["method_options"]).str.strip()


def _comparisons(pair: pd.DataFrame) -> Iterator[dict[str, Any]]:
    methods = dict(iter(pair.groupby(name(pair), sort=False)))
    for key, rows in methods.items():
        own = _comparison.accuracies(rows)
        yield from _test("accuracy", "supervisor", key, _comparison.difference(_comparison.accuracies(rows, "weak"), own))
        yield from _test("accuracy", key, "ceiling", _comparison.difference(own, _comparison.accuracies(rows, "ceiling")))
        for reference in REFERENCES:
            if reference in methods and _once(reference, key):
                before = _comparison.accuracies(methods[reference])
                yield from _test("accuracy", reference, key, _comparison.difference(before, own))
    if "baseline" in methods and pgr.comparable(pair) and pgr.interval(methods["baseline"]).status == stats.OK:
        for key, rows in methods.items():
            if key not in ("baseline", "zero_shot"):
                yield from _test("pgr", "baseline", key, _comparison.pgr_difference(methods["baseline"], rows))


def _once(reference: str, method: str) -> bool:
    """Return whether a reference is compared with a method, so that each pair of references is compared once."""
    order = ("zero_shot", "self_training", "baseline")
    return method not in order or (reference in order and order.index(reference) < order.index(method))


def _across(students: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Yield the tests of each method against the supervisor and the baseline, with one observation per task.

    Args:
        students: either all imported students or all others.
    """
    cells = students.assign(name=name(students)).set_index([*PAIR, "seed"])
    baseline = cells.loc[cells["name"] == "baseline", "accuracy"]
    blank = dict.fromkeys(PAIR[1:5], "-") | {"task": ALL}
    if (students["head"] == IMPORTED).all():
        blank["head"] = IMPORTED
    for key, rows in cells.groupby("name", sort=False):
        matched = {"supervisor": rows["weak_accuracy"]}
        if key != "baseline" and not baseline.index.has_duplicates and not rows.index.has_duplicates:
            matched["baseline"] = baseline
        for reference, before in matched.items():
            both = pd.concat([before, rows["accuracy"]], axis=1, join="inner", keys=["before", "after"])
            tasks = both.groupby("task").mean()
            if len(tasks) >= TASKS:
                test = _comparison.over_units(tasks["before"], tasks["after"]) | {"p_seeds": float("nan")}
                for row in _test("accuracy", reference, str(key), test, "task"):
                    yield blank | row | {"failed_ceilings": int(rows["ceiling_failed"].sum())}


def _test(metric: str, baseline: str, method: str, test: dict[str, Any] | None, unit: str = "seed") -> Iterator[dict[str, Any]]:
    if test is not None:
        yield {"metric": metric, "baseline": baseline, "method": method, "unit": unit, **test}
