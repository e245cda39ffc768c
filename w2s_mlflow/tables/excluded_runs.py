"""Excluded runs, each with the rule that excludes it."""

from __future__ import annotations

import pandas as pd

CAPTION = (
    "Runs left out: made again (a newer run has the same fingerprint), not reported (no test report), damaged (predictions "
    "lost or not what was written), contradicted (a reported number that predictions do not give), other data (of one cut, "
    "not the newest digest), duplicated seed (the same options and seed in a newer run). No rule looks at a student's "
    "outcome."
)
FRAMES = ("left_out",)
COLUMNS = ["exclusion_rule", "name", "run_id", "reason"]


def table(left_out: pd.DataFrame) -> pd.DataFrame:
    """Return one row per run, sorted by rule."""
    return left_out.sort_values(["exclusion_rule", "name"], kind="stable")[COLUMNS]
