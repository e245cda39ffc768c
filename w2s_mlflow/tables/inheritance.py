"""Errors of the supervisor that students copy or correct, and new errors that students make."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from w2s_mlflow import stats
from w2s_mlflow.tables import LABEL

CAPTION = (
    "Shares of the test rows by who is right, which sum to 1; means over n seeds. both_right: both are right; corrected: "
    "only the student is right; broken: only the supervisor is right; copied: both give the same wrong answer; both_wrong: "
    "they give different wrong answers (only with more than two classes). `of_errors_corrected` is corrected / (corrected + "
    "copied + both_wrong), with its 95% t interval over seeds."
)
FRAMES = ("outcomes",)
SHARES = ["both_right", "corrected", "broken", "copied", "both_wrong"]
COLUMNS = [*LABEL, "n", *SHARES, "of_errors_corrected", "of_errors_corrected_low", "of_errors_corrected_high"]


def table(outcomes: pd.DataFrame) -> pd.DataFrame:
    """Return one row per combination of the LABEL columns, for students that have a supervisor."""
    students = outcomes[outcomes["weak_answer"].notna()]
    rows = []
    for key, group in students.groupby(LABEL, sort=False):
        shares_by_run = pd.DataFrame([shares(row.gold, row.weak_answer, row.answer) for row in group.itertuples()])
        errors = 1 - shares_by_run["both_right"] - shares_by_run["broken"]
        share = shares_by_run["corrected"] / errors.where(errors > 0)
        corrected = stats.seed_interval(share, units=list(group["checkpoints"]))
        means = {name: float(shares_by_run[name].mean()) for name in SHARES}
        row = dict(zip(LABEL, key, strict=True)) | {"n": len(group), **means}
        rows.append(row | corrected.named("of_errors_corrected"))
    return pd.DataFrame(rows, columns=COLUMNS)


def shares(gold_N: Any, weak_N: Any, student_N: Any) -> dict[str, float]:
    """Return the five shares named in SHARES, for the test rows of one run.

    The arguments are class indices: ground truth, supervisor's answers and student's answers.
    """
    gold_N, weak_N, student_N = (np.asarray(classes) for classes in (gold_N, weak_N, student_N))
    weak_right, right = weak_N == gold_N, student_N == gold_N
    same = weak_N == student_N
    parts = (weak_right & right, ~weak_right & right, weak_right & ~right, ~weak_right & ~right & same)
    values = {name: float(part.mean()) for name, part in zip(SHARES, parts, strict=False)}
    return values | {"both_wrong": float((~weak_right & ~right & ~same).mean())}
