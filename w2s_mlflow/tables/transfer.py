"""Transfer matrix: gain and PGR of each student under each supervisor, for tasks with several pairs of models."""

from __future__ import annotations

import pandas as pd

from w2s_mlflow.tables import pgr

CAPTION = (
    "Transfer matrix, one row per cell: the gain of each student over each supervisor (accuracy, mean over n seeds), and "
    "PGR with its 95% interval."
)
FRAMES = ("outcomes",)
KEYS = ["task", "head", "method", "method_options", "other_options"]
COLUMNS = [*KEYS, "weak", "strong", "n", "weak_accuracy", "accuracy", "gain", "failed_ceilings"]
COLUMNS += ["pgr", "pgr_low", "pgr_high", "pgr_status"]


def table(outcomes: pd.DataFrame) -> pd.DataFrame:
    """Return one row per supervisor, student and method; methods with a single pair of models are skipped."""
    cells = pgr.table(outcomes[outcomes["weak_accuracy"].notna()])
    cells["gain"] = cells["accuracy"] - cells["weak_accuracy"]
    several = cells.groupby(KEYS)["weak"].transform("size") > 1
    return cells[several].sort_values([*KEYS, "weak", "strong"], kind="stable")[COLUMNS]
