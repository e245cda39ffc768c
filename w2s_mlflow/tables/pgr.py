"""Performance gap recovered (PGR) per task, pair of models and method; control methods are rows of the same table."""

from __future__ import annotations

from typing import Any

import pandas as pd

from w2s_mlflow import stats
from w2s_mlflow.tables import ELICITED, LABEL, PAIR

CAPTION = (
    "Test accuracy of supervisor, student and ceiling (means over n seeds; the student's with its 95% interval), and PGR "
    "with Fieller's 95% interval. Intervals are two-way clustered over seeds and test groups; over test groups alone where "
    "nothing varies with the seed (rules, untrained models, a single seed); for imported runs (head `imported`), over seeds "
    "alone. `pretrainings` counts the different pretrained checkpoints (combinations of them) among the n seeds: seeds that "
    "share them are one cluster, and with one pretraining the interval speaks of that one only. PGR is undetermined unless "
    "the interval of ceiling minus supervisor lies above zero. `failed_ceilings` counts the seeds whose ceiling did not "
    "learn: near chance on its training rows, or below its supervisor. `collapsed` counts the students that predict one "
    "class for 99% of the rows of `validation`, which are among the n, and those whose loss was not finite, which have no "
    "accuracy and are not. With either, `reliable` is no: the means depend on how many trainings happened to fail. An "
    "interval without collapsed students speaks of trainings that do not collapse. The status is `elicited` if label-free "
    "answers of the strong model are better than the ceiling on `selection`; `pgr_elicited` is then held against the better "
    "of both on `test`. `low` and `high` repeat `pgr_low` and `pgr_high`."
)
FRAMES = ("outcomes",)
COLUMNS = [*LABEL, "n", "pretrainings", "weak_accuracy", "accuracy", "accuracy_low", "accuracy_high"]
COLUMNS += ["ceiling_accuracy", "failed_ceilings"]
COLUMNS += ["collapsed", "reliable", "agreement", "pgr", "pgr_low", "pgr_high", "pgr_status", "low", "high"]
COLUMNS += ["elicited_accuracy", "pgr_elicited", "pgr_elicited_low", "pgr_elicited_high"]


def table(outcomes: pd.DataFrame) -> pd.DataFrame:
    """Return one row per combination of the LABEL columns, training size and test size.

    Rules have no supervisor, ceiling or seed; students may have no supervisor or ceiling.
    """
    keys = list(dict.fromkeys(LABEL + PAIR))
    rows = [dict(zip(keys, key, strict=True)) | _row(group) for key, group in outcomes.groupby(keys, sort=False)]
    return pd.DataFrame(rows, columns=COLUMNS)


def _row(group: pd.DataFrame) -> dict[str, Any]:
    row: dict[str, Any] = {
        "n": len(group),
        "pretrainings": group["checkpoints"].nunique(),
        "weak_accuracy": group["weak_accuracy"].mean(),
        **accuracy_interval(group).named("accuracy"),
        "ceiling_accuracy": group["ceiling_accuracy"].mean(),
        "failed_ceilings": int(group["ceiling_failed"].sum()),
        "collapsed": collapsed(group),
        "agreement": group["agreement"].mean(),
    }
    row["reliable"] = "no" if row["failed_ceilings"] or row["collapsed"] else "yes"
    if not comparable(group):
        return row
    pgr = interval(group)
    bounds = {"pgr_low": pgr.low, "pgr_high": pgr.high, "low": pgr.low, "high": pgr.high}
    row |= {"pgr": pgr.point, "pgr_status": pgr.status} | bounds
    is_elicited = pgr.status == stats.OK and group["elicited_correct"].notna().all()
    return row | _elicited(group) if is_elicited else row


def _elicited(group: pd.DataFrame) -> dict[str, Any]:
    """Return the columns of a row whose strong model gives better answers without labels than its ceiling."""
    accuracy = group["elicited_accuracy"].mean()
    if accuracy > group["ceiling_accuracy"].mean():
        group = group.assign(ceiling_correct=group["elicited_correct"], ceiling_accuracy=group["elicited_accuracy"])
    against = interval(group)
    values = {"pgr_elicited": against.point, "pgr_elicited_low": against.low, "pgr_elicited_high": against.high}
    return {"pgr_status": ELICITED, "elicited_accuracy": accuracy} | values


def collapsed(group: pd.DataFrame) -> int:
    """Return the number of collapsed students of one row of the table, including those whose loss was not finite."""
    return int(group["collapsed"].sum() + group["diverged"].max())


def accuracy_interval(group: pd.DataFrame) -> stats.Interval:
    """Return the mean accuracy of one row of the table, with its interval over seeds and test groups.

    The interval is over seeds alone if the answers to the test rows are unknown (imported runs).
    """
    if group["correct"].isna().any():
        return stats.seed_interval(group["accuracy"], units=list(group["checkpoints"]))
    return stats.two_way_interval(list(group["correct"]), group["groups"].iloc[0], units=list(group["checkpoints"]))


def comparable(group: pd.DataFrame) -> bool:
    """Return whether every run has a supervisor and a ceiling that were scored on its test rows."""
    return not group[["weak_accuracy", "ceiling_accuracy"]].isna().any(axis=None)


def interval(group: pd.DataFrame) -> stats.PGR:
    """Return the PGR of one row of the table, computed over the row's seeds, with its interval and status.

    The interval is over seeds and test groups, or over seeds alone if the answers to the test rows are unknown (imported runs).
    """
    units = list(group["checkpoints"])
    if group["correct"].isna().any():
        return stats.pgr_over_seeds(group["weak_accuracy"], group["accuracy"], group["ceiling_accuracy"], units=units)
    weak, student, ceiling = (list(group[name]) for name in ("weak_correct", "correct", "ceiling_correct"))
    return stats.pgr_interval(weak, student, ceiling, group["groups"].iloc[0], units=units)


def by_seed(group: pd.DataFrame) -> pd.Series:
    """Return the PGR of each run; NaN if supervisor and ceiling are equally accurate."""
    columns = group[["weak_accuracy", "accuracy", "ceiling_accuracy"]]
    values = [stats.pgr(*row) for row in columns.itertuples(index=False, name=None)]
    return pd.Series(values, index=group.index, dtype=float)
