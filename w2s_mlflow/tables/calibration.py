"""Calibration of supervisors, ceilings and students, measured by every metric of metrics.py."""

from __future__ import annotations

import pandas as pd

from w2s_mlflow import stats
from w2s_mlflow.metrics import METRICS

CAPTION = "On test, means over n seeds, and the 95% t interval over seeds of ece. "
CAPTION += "; ".join(f"{name}: {metric.description}" for name, metric in METRICS.items()) + "."
FRAMES = ("runs",)
KEYS = ["task", "stage", "weak", "strong", "head", "method", "method_options", "other_options"]
MEANS = [name for name in METRICS if name != "ece"]
COLUMNS = [*KEYS, "n", *MEANS, "ece", "ece_low", "ece_high"]


def table(runs: pd.DataFrame) -> pd.DataFrame:
    """Return one row per stage, task, models and options; rules are skipped, because they have no probabilities."""
    rows = []
    for key, found in runs[runs["ece"].notna() & (runs["stage"] != "rule")].groupby(KEYS, sort=False):
        means = {name: found[name].mean() for name in MEANS}
        row = dict(zip(KEYS, key, strict=True)) | {"n": len(found)} | means
        rows.append(row | stats.seed_interval(found["ece"], units=list(found["checkpoints"])).named("ece"))
    return pd.DataFrame(rows, columns=COLUMNS)
