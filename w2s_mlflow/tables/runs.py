"""All finished runs of any stage that are not excluded."""

from __future__ import annotations

import pandas as pd

from w2s_mlflow.metrics import METRICS

CAPTION = (
    "Finished runs. `human` is weak or strong against the task's published human score (Definitions 1 and 2), where there "
    "is one on accuracy; `gold` names the part whose ground truth a run or its ancestors have learned."
)
FRAMES = ("runs",)
COLUMNS = ["stage", "task", "weak", "strong", "head", "method", "variant", "setting", "seed"]
COLUMNS += [*METRICS, "pgr", "pgr_status", "ceiling_failed", "human", "gold", "seconds", "run_id", "fingerprint"]


def table(runs: pd.DataFrame) -> pd.DataFrame:
    """Return one row per run, sorted by stage."""
    return runs.sort_values(["stage", "task", "weak", "strong", "method", "seed"], kind="stable")[COLUMNS]
