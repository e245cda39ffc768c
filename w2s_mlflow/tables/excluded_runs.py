"""Excluded runs, each with the rule that excludes it."""

from __future__ import annotations

import pandas as pd

CAPTION = (
    "Excluded runs, by rule. made again: a newer run has the same fingerprint; not reported: no test report; damaged: "
    "predictions are missing or damaged; contradicted: a logged metric differs from the stored predictions; other data: "
    "the run's split or test rows differ from those of newer runs; duplicated seed: a newer run has the same options and "
    "seed; diverged: its loss was not finite (counted in the column `collapsed` of the table `pgr`). No other rule depends on "
    "a student's outcome."
)
FRAMES = ("left_out",)
COLUMNS = ["exclusion_rule", "name", "run_id", "reason"]


def table(left_out: pd.DataFrame) -> pd.DataFrame:
    """Return one row per excluded run, sorted by rule."""
    return left_out.sort_values(["exclusion_rule", "name"], kind="stable")[COLUMNS]
