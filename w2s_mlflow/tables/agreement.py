"""Agreement of students with their supervisor, by size and method (Figure 3)."""

from __future__ import annotations

import pandas as pd

from w2s_mlflow import stats
from w2s_mlflow.tables import LABEL

CAPTION = (
    "Agreement with the supervisor on test: mean over n seeds with its 95% t interval. `independent` is the agreement "
    "expected from the accuracies of supervisor and student if their errors were independent (two classes)."
)
FRAMES = ("outcomes",)
COLUMNS = [*LABEL, "parameters", "n", "agreement", "agreement_low", "agreement_high", "independent"]


def table(outcomes: pd.DataFrame) -> pd.DataFrame:
    """Return one row per combination of the LABEL columns, for students that have a supervisor.

    The rows are sorted by task, supervisor and student size.
    """
    students = outcomes[outcomes["agreement"].notna()]
    rows = []
    for key, group in students.groupby(LABEL, sort=False):
        agreement = stats.seed_interval(group["agreement"], units=list(group["checkpoints"]))
        weak, student = group["weak_accuracy"], group["accuracy"]
        row = dict(zip(LABEL, key, strict=True)) | {"n": len(group), "parameters": group["parameters"].iloc[0]}
        row |= agreement.named("agreement")
        rows.append(row | {"independent": float((weak * student + (1 - weak) * (1 - student)).mean())})
    return pd.DataFrame(rows, columns=COLUMNS).sort_values(["task", "weak", "parameters"], kind="stable")
