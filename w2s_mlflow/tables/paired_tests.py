"""Paired tests (Table 3): each method against its supervisor, its ceiling, the baseline and the untuned model.

Within a task the unit is the seed: supervisor, student and ceiling of one seed share their data, so their difference is one
observation.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from w2s_mlflow import stats
from w2s_mlflow.tables import PAIR, pgr

CAPTION = (
    "Paired t-tests over seeds (unit: the seed; n seeds): mean difference with its 95% interval, effect size d_z, p, Holm's p "
    "within one metric of this table, and the Wilcoxon signed-rank p, which cannot be below .0625 at n = 5. PGR is compared "
    "only where it is determined for the pair. `failed_ceilings` counts the seeds whose ceiling did not learn."
)
REFERENCES = ("baseline", "untuned")
COLUMNS = [*PAIR[:4], "metric", "baseline", "method", "unit", "n", "mean_difference", "low", "high", "effect_size", "t", "p"]
COLUMNS += ["failed_ceilings"]


def table(outcomes: pd.DataFrame) -> pd.DataFrame:
    """One row per comparison of two columns of accuracies (or PGRs), matched by seed."""
    students = outcomes[outcomes["weak_correct"].notna()]
    rows = [
        dict(zip(PAIR, key, strict=True)) | row | {"failed_ceilings": int(found.groupby("seed")["ceiling_failed"].any().sum())}
        for key, found in students.groupby(PAIR, sort=False)
        for row in _comparisons(found)
    ]
    found = pd.DataFrame(rows, columns=[*COLUMNS, "p_wilcoxon"])
    found["p_holm"] = found.groupby("metric")["p"].transform(lambda p: stats.holm(p.to_numpy()))
    return found


def _comparisons(pair: pd.DataFrame) -> Iterator[dict[str, Any]]:
    methods = {name: rows.set_index("seed").sort_index() for name, rows in pair.groupby(_name(pair), sort=False)}
    for name, rows in methods.items():
        yield from _test("accuracy", "supervisor", name, rows["weak_accuracy"], rows["accuracy"])
        yield from _test("accuracy", name, "ceiling", rows["accuracy"], rows["ceiling_accuracy"])
        for reference in REFERENCES:
            if reference in methods and name not in (reference, "untuned"):  # each pair of methods once
                yield from _test("accuracy", reference, name, methods[reference]["accuracy"], rows["accuracy"])
    whole = pair["ceiling_correct"].notna().all()
    if whole and "baseline" in methods and pgr.interval(methods["baseline"]).status == stats.OK:
        for name, rows in methods.items():
            if name not in REFERENCES:
                yield from _test("pgr", "baseline", name, _pgr(methods["baseline"]), _pgr(rows))


def _name(pair: pd.DataFrame) -> pd.Series:
    return (pair["method"] + " " + pair["variant"]).str.strip()


def _test(metric: str, baseline: str, method: str, before: pd.Series, after: pd.Series) -> Iterator[dict[str, Any]]:
    matched = pd.concat([before, after], axis=1, join="inner", keys=["before", "after"]).dropna()
    if len(matched) < 2:
        return
    test = stats.paired_t_test(matched["before"], matched["after"])
    wilcoxon = stats.wilcoxon_p(matched["before"], matched["after"])
    yield {"metric": metric, "baseline": baseline, "method": method, "unit": "seed", **test._asdict(), "p_wilcoxon": wilcoxon}


def _pgr(rows: pd.DataFrame) -> pd.Series:
    columns = rows[["weak_accuracy", "accuracy", "ceiling_accuracy"]]
    values = [stats.pgr(*row) for row in columns.itertuples(index=False, name=None)]
    return pd.Series(np.array(values, dtype=float), index=rows.index)
