"""Paired tests (Table 3): each method against its supervisor, its ceiling, the baseline method and the zero-shot model.

Within a task the unit is the seed: supervisor, student and ceiling of one seed share their data, so their difference is one
observation. Across five or more tasks the unit is the task, averaged over its pairs of models and seeds.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from w2s_mlflow import stats
from w2s_mlflow.tables import IMPORTED, PAIR, pgr

CAPTION = (
    "Paired t-tests. The unit is the seed within a task, and the task, averaged over pairs and seeds, across five or more "
    "tasks. Columns: mean difference with its 95% interval, effect size d_z, p, Holm's p within one metric of this table, "
    "separately for own and for imported runs, and the Wilcoxon signed-rank p, which is at least .0625 for n = 5. PGR is "
    "compared only if it is determined for the pair. `failed_ceilings` counts the seeds whose ceiling did not learn."
)
FRAMES = ("outcomes",)
REFERENCES = ("baseline", "zero_shot")
TASKS = 5
"""Minimum number of tasks for a test across tasks."""
ALL = "(all)"
COLUMNS = [*PAIR[:5], "metric", "baseline", "method", "unit", "n", "mean_difference", "low", "high", "effect_size", "t", "p"]
COLUMNS += ["p_holm", "p_wilcoxon", "failed_ceilings"]


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
    frame = pd.DataFrame(rows, columns=COLUMNS)
    frame["p_holm"] = frame.groupby(["metric", frame["head"] == IMPORTED])["p"].transform(lambda p: stats.holm(p.to_numpy()))
    return frame


def name(rows: pd.DataFrame) -> pd.Series:
    """Return, for each row, the name of the method and the options that distinguish it from other rows of the same method."""
    return (rows["method"] + " " + rows["method_options"]).str.strip()


def _comparisons(pair: pd.DataFrame) -> Iterator[dict[str, Any]]:
    methods = {key: rows.set_index("seed").sort_index() for key, rows in pair.groupby(name(pair), sort=False)}
    for key, rows in methods.items():
        yield from _test("accuracy", "supervisor", key, rows["weak_accuracy"], rows["accuracy"])
        yield from _test("accuracy", key, "ceiling", rows["accuracy"], rows["ceiling_accuracy"])
        for reference in REFERENCES:
            if reference in methods and key not in (reference, "zero_shot"):  # compare each pair of methods once
                yield from _test("accuracy", reference, key, methods[reference]["accuracy"], rows["accuracy"])
    if "baseline" in methods and pgr.comparable(pair) and pgr.interval(methods["baseline"]).status == stats.OK:
        for key, rows in methods.items():
            if key not in REFERENCES:
                yield from _test("pgr", "baseline", key, pgr.by_seed(methods["baseline"]), pgr.by_seed(rows))


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
                for row in _test("accuracy", reference, str(key), tasks["before"], tasks["after"], "task"):
                    yield blank | row | {"failed_ceilings": int(rows["ceiling_failed"].sum())}


def _test(
    metric: str, baseline: str, method: str, before: pd.Series, after: pd.Series, unit: str = "seed"
) -> Iterator[dict[str, Any]]:
    matched = pd.concat([before, after], axis=1, join="inner", keys=["before", "after"]).dropna()
    if len(matched) < 2:
        return
    test = stats.paired_t_test(matched["before"], matched["after"])
    wilcoxon = stats.wilcoxon_p(matched["before"], matched["after"])
    yield {"metric": metric, "baseline": baseline, "method": method, "unit": unit, **test._asdict(), "p_wilcoxon": wilcoxon}
