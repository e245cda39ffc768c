"""Compute used for students: for their own training, for all training that they depend on, and per point of PGR."""

from __future__ import annotations

import math

import pandas as pd

from w2s_mlflow.tables import DETERMINED, IMPORTED, LABEL

CAPTION = (
    "Means over the n runs of a label: seconds from start to end (machines may differ), training tokens, and estimated "
    "training operations, 6 x parameters x tokens. `total_*` includes supervisor, chain, debates and generative finetuning, "
    "each counted once per run even if several runs share them. `flops_per_point` is total_flops per hundredth of PGR; it is "
    "defined if the mean PGR is positive and PGR is determined for every run."
)
FRAMES = ("runs",)
KEYS = LABEL
USED = ["seconds", "total_seconds", "tokens", "total_tokens", "flops", "total_flops"]
COLUMNS = [*KEYS, "n", *USED, "pgr", "flops_per_point"]


def table(runs: pd.DataFrame) -> pd.DataFrame:
    """Return one row per combination of the LABEL columns. Imported students are skipped, because their cost is unknown."""
    students = runs[(runs["stage"] == "student") & (runs["head"] != IMPORTED)]
    rows = []
    for key, group in students.groupby(KEYS, sort=False):
        means = {name: float(group[name].mean()) for name in (*USED, "pgr")}
        if not group["pgr_status"].isin(DETERMINED).all():
            means["pgr"] = math.nan
        means["flops_per_point"] = means["total_flops"] / (100 * means["pgr"]) if means["pgr"] > 0 else math.nan
        rows.append(dict(zip(KEYS, key, strict=True)) | {"n": len(group)} | means)
    return pd.DataFrame(rows, columns=COLUMNS)
