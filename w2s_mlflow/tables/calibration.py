"""Calibration of supervisors, ceilings and students: accuracy, AUROC, Brier score and expected calibration error."""

from __future__ import annotations

import pandas as pd

from w2s_mlflow import stats

CAPTION = (
    "Calibration on test, means over n seeds: accuracy, area under the ROC curve, Brier score, and expected calibration "
    "error (ten equal bins of confidence) with its 95% t interval over seeds."
)
FRAMES = ("runs",)
KEYS = ["task", "stage", "weak", "strong", "head", "method", "method_options", "other_options"]
COLUMNS = [*KEYS, "n", "accuracy", "auroc", "brier", "ece", "ece_low", "ece_high"]


def table(runs: pd.DataFrame) -> pd.DataFrame:
    """Return one row per stage, task, models and options; rules are skipped, as they have no probabilities."""
    rows = []
    for key, group in runs[runs["ece"].notna() & (runs["stage"] != "rule")].groupby(KEYS, sort=False):
        means = {name: group[name].mean() for name in ("accuracy", "auroc", "brier")}
        row = dict(zip(KEYS, key, strict=True)) | {"n": len(group)} | means
        rows.append(row | stats.seed_interval(group["ece"]).named("ece"))
    return pd.DataFrame(rows, columns=COLUMNS)
