"""All finished runs of any stage that are not excluded."""

from __future__ import annotations

import pandas as pd

from w2s_mlflow.metrics import METRICS

CAPTION = (
    "Finished runs. `vs_human` is `weak` below the task's published human accuracy, `strong` above it (Definitions 1 and 2) "
    "and `equal` otherwise, if there is one; `gold` names the part whose ground truth the run or its ancestors were trained on."
)
FRAMES = ("runs",)
COLUMNS = ["stage", "task", "weak", "strong", "head", "method", "method_options", "other_options", "seed"]
COLUMNS += [*METRICS, "pgr", "pgr_status", "ceiling_failed", "vs_human", "gold", "seconds", "run_id", "fingerprint"]


def table(runs: pd.DataFrame) -> pd.DataFrame:
    """Return one row per run, sorted by stage."""
    return runs.sort_values(["stage", "task", "weak", "strong", "method", "seed"], kind="stable")[COLUMNS]
