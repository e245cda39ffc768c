"""Gold equivalent: the number of gold labels on which the strong model reaches the accuracy of a student of weak labels."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from w2s_mlflow import stats
from w2s_mlflow.tables import LABEL, PAIR, logged

CAPTION = (
    "How many gold labels the weak ones are worth. The gold curve is the mean test accuracy of the strong model trained on "
    "the ground truth of a few rows (`gold_subset`), over the numbers of rows `smallest` to `largest`. `gold_rows` is the "
    "number at which the curve reaches the student's mean accuracy, interpolated in the logarithm of the number; "
    "`gold_rows_low` and `gold_rows_high` are the numbers for the bounds of its 95% t interval over n seeds. The error of the "
    "curve itself is not included. Where the curve falls, its running maximum counts. Values outside the curve are 0 and "
    "infinite."
)
FRAMES = ("outcomes",)
COLUMNS = [*LABEL, "n", "accuracy", "accuracy_low", "accuracy_high"]
COLUMNS += ["gold_rows", "gold_rows_low", "gold_rows_high", "smallest", "largest"]
WEAK, GOLD = "weak", "gold_subset"
"""Values of `--labels` of the compared students."""
TRAINING = ("learning_rate", "batch_size", "weights")
"""Options in which a student and the gold curve must agree."""


def table(outcomes: pd.DataFrame) -> pd.DataFrame:
    """Return one row per method of students of weak labels for which a gold curve has at least two points."""
    runs = outcomes.assign(**{f"run_{name}": logged(outcomes, name) for name in ("labels", "gold_rows", *TRAINING)})
    rows = []
    for _, pair in runs.groupby([*PAIR, *(f"run_{name}" for name in TRAINING)], sort=False):
        curve = _curve(pair[pair["run_labels"] == GOLD])
        if len(curve) > 1:
            students = pair[pair["run_labels"] == WEAK].groupby(LABEL, sort=False)
            rows += [dict(zip(LABEL, key, strict=True)) | _row(group, curve) for key, group in students]
    return pd.DataFrame(rows, columns=COLUMNS)


def _curve(runs: pd.DataFrame) -> pd.Series:
    """Return the mean accuracy by number of gold rows, in increasing order."""
    return runs.groupby(runs["run_gold_rows"].astype(int))["accuracy"].mean()


def _row(group: pd.DataFrame, curve: pd.Series) -> dict[str, Any]:
    interval = stats.seed_interval(group["accuracy"], units=list(group["checkpoints"]))
    row = {"n": len(group), **interval.named("accuracy"), "smallest": curve.index[0], "largest": curve.index[-1]}
    bounds = {"gold_rows": interval.mean, "gold_rows_low": interval.low, "gold_rows_high": interval.high}
    return row | {name: crossing(curve.index, curve, accuracy) for name, accuracy in bounds.items()}


def crossing(rows: ArrayLike, accuracies: ArrayLike, accuracy: float) -> float:
    """Return the number of rows at which the curve first reaches an accuracy, interpolated in its logarithm.

    It is 0 if the first point of the curve is already higher, and infinite if the curve stays below. NaN stays NaN.
    """
    logs, reached = np.log(np.asarray(rows, dtype=np.float64)), np.maximum.accumulate(np.asarray(accuracies, dtype=np.float64))
    if math.isnan(accuracy):
        return math.nan
    if accuracy < reached[0]:
        return 0.0
    if accuracy > reached[-1]:
        return math.inf
    after = int(np.searchsorted(reached, accuracy))
    if reached[after] == accuracy:
        return float(np.exp(logs[after]))
    share = (accuracy - reached[after - 1]) / (reached[after] - reached[after - 1])
    return float(np.exp(logs[after - 1] + share * (logs[after] - logs[after - 1])))
