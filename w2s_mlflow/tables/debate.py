"""Debates between a student and its supervisor: win rates, and the accuracy of the judge (Definition 4)."""

from __future__ import annotations

import pandas as pd

from w2s_mlflow import stats

CAPTION = (
    "Debates by protocol, explainer and judge; means over n seeds with 95% t intervals. `win_rate` is the win rate of the "
    "strong side in all debates, `win_rate_on_disagreements` in those where the sides disagree; `position_bias` is the mean "
    "log-odds for the side shown first. Measured against ground truth on questions where exactly one side is right: "
    "`judge_accuracy`, `always_strong_accuracy` (the accuracy of a judge who always believes the strong side), and the "
    "judge's calibration error `judge_ece`. On all questions: the accuracy of both sides and of the labels made from the "
    "verdicts."
)
FRAMES = ("debates",)
KEYS = ["task", "weak", "strong", "split", "protocol", "explainer", "evidence_spans", "turns", "judge", "other_options"]
BOUNDED = ("win_rate", "win_rate_on_disagreements", "judge_accuracy")
MEANS = (
    *("disagreements", "position_bias", "no_verdict", "cost", "always_strong_accuracy", "judge_ece"),
    *("weak_accuracy", "strong_accuracy", "label_accuracy"),
)
COLUMNS = [*KEYS, "n", *(f"{name}{bound}" for name in BOUNDED for bound in ("", "_low", "_high")), *MEANS]


def table(debates: pd.DataFrame) -> pd.DataFrame:
    """Return one row per model pair, protocol, explainer, judge and other options."""
    rows = []
    for key, group in debates.groupby(KEYS, sort=False):
        row = dict(zip(KEYS, key, strict=True)) | {"n": len(group)}
        for name in BOUNDED:
            row |= stats.seed_interval(group[name], units=list(group["checkpoints"])).named(name)
        rows.append(row | {name: float(group[name].mean()) for name in MEANS})
    return pd.DataFrame(rows, columns=COLUMNS)
