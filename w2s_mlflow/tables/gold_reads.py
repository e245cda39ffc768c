"""Number of ground-truth labels read, by stage, part of the task and reason."""

from __future__ import annotations

import pandas as pd

CAPTION = "Number of ground-truth rows read, by stage, part of the task and reason, summed over the runs that are not excluded."
FRAMES = ("runs",)
COLUMNS = ["task", "stage", "part", "reason", "runs", "rows"]


def table(runs: pd.DataFrame) -> pd.DataFrame:
    """Return one row per task, stage, part and reason."""
    reads = [
        {"task": run["task"], "stage": run["stage"], "part": name.split("/")[0], "reason": name.split("/")[1], "rows": rows}
        for run in runs.to_dict("records")
        for name, rows in run["reads"].items()
    ]
    if not reads:
        return pd.DataFrame(columns=COLUMNS)
    grouped = pd.DataFrame(reads).groupby(["task", "stage", "part", "reason"], as_index=False)
    return grouped.agg(runs=("rows", "size"), rows=("rows", "sum")).astype({"rows": int})[COLUMNS]
