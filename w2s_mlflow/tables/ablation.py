"""Ablation (Table 2): accuracy and PGR of the full method and of variants without one enhancement, with the paper's values."""

from __future__ import annotations

import math

import pandas as pd

from w2s_mlflow.tables import IMPORTED, pgr

CAPTION = (
    "Accuracy and PGR of the full method, and of the full method without one enhancement, without imported runs. The paper's "
    "values (Table 2) were measured on other tasks and models, and the paper has none for the full method; compare only their "
    "order."
)
FRAMES = ("outcomes",)
PAPER = {
    "full": (math.nan, math.nan),
    "full-without-confidence": (0.82, 0.60),
    "full-without-bootstrap": (0.80, 0.55),
    "full-without-generative": (0.85, 0.70),
}
"""Accuracy and PGR that the paper reports, by method."""
COLUMNS = ["task", "weak", "strong", "method", "method_options", "other_options"]
COLUMNS += ["n", "weak_accuracy", "accuracy", "ceiling_accuracy", "failed_ceilings"]
COLUMNS += ["pgr", "pgr_low", "pgr_high", "pgr_status", "paper_accuracy", "paper_pgr"]


def table(outcomes: pd.DataFrame) -> pd.DataFrame:
    """Return one row per combination of the LABEL columns, for the methods in PAPER; empty if no run used them."""
    runs = outcomes[outcomes["method"].isin(PAPER) & (outcomes["head"] != IMPORTED)]
    if runs.empty:
        return pd.DataFrame(columns=COLUMNS)
    rows = pgr.table(runs)
    for index, name in enumerate(("paper_accuracy", "paper_pgr")):
        rows[name] = [PAPER[method][index] for method in rows["method"]]
    return rows.reindex(columns=COLUMNS)
