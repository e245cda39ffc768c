"""Supervisor errors that students copy or correct, and new errors of students, by method."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from w2s_mlflow.figures import _drawing
from w2s_mlflow.tables import inheritance

FRAMES = ("outcomes",)
CAPTION = (
    "Test rows on which supervisor or student is wrong, as shares of all rows (means over n seeds). corrected: only the "
    "student is right; broken: only the supervisor is right; copied: both give the same wrong answer; both_wrong: they give "
    "different wrong answers."
)
PARTS = {"corrected": "#009E73", "copied": "#D55E00", "broken": "#E69F00", "both_wrong": "#999999"}


def figure(outcomes: pd.DataFrame) -> Figure:
    """Draw one panel per task and model pair, with one bar per method."""
    cells = list(inheritance.table(outcomes).groupby(["task", "weak", "strong"], sort=False))
    labels = [[f"{name}, n = {n}" for name, n in zip(_drawing.names(rows), rows["n"], strict=True)] for _, rows in cells]
    fig, panels = _drawing.bars(labels)
    for axes, names, ((task, weak, strong), rows) in zip(panels, labels, cells, strict=True):
        _drawing.stacked(axes, rows, PARTS, names)
        axes.set_xlabel("share of test rows")
        _drawing.title(axes, task, f"{weak} → {strong}")
    _drawing.legend(fig)
    return fig
