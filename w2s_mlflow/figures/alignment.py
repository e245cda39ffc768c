"""How far a judge is won over by alignment, and at what price in accuracy (eq. 2)."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from w2s_mlflow.figures import _drawing

CAPTION = (
    "Plain students (hollow) and aligned ones (full) on held-out questions: left the mean D, the judge's log-odds for the "
    "strong side, right the test accuracy; a line joins the two of one seed."
)
FRAMES = ("alignments",)
SHOWN = {"preference": "mean D", "accuracy": "test accuracy"}


def figure(alignments: pd.DataFrame) -> Figure:
    """The figure: two panels per task and models, one place per lambda and judge."""
    cells = list(alignments.groupby(["task", "weak", "strong"], sort=False))
    drawn, panels = _drawing.panels(len(SHOWN) * len(cells))
    for number, (key, rows) in enumerate(cells):
        for (name, label), axes in zip(SHOWN.items(), panels[len(SHOWN) * number :], strict=False):
            _pairs(axes, rows, name)
            axes.set_ylabel(label)
            _drawing.title(axes, key[0], f"{key[1]} → {key[2]}")
    return drawn


def _pairs(axes: Axes, rows: pd.DataFrame, name: str) -> None:
    settings = [f"λ = {lam}, {judge}" for lam, judge in zip(rows["lam"], rows["judge"], strict=True)]
    places = list(dict.fromkeys(settings))
    for setting, row in zip(settings, rows.to_dict("records"), strict=True):
        place, before, after = places.index(setting), row[f"{name}_before"], row[f"{name}_after"]
        axes.plot([place - 0.15, place + 0.15], [before, after], color="0.7", linewidth=0.8, zorder=1)
        axes.plot(place - 0.15, before, "o", color=_drawing.COLOURS[0], fillstyle="none", markersize=5)
        axes.plot(place + 0.15, after, "o", color=_drawing.COLOURS[1], markersize=5)
        _drawing.tip(axes, place + 0.15, after, f"{setting}, seed {row['seed']}: {before:.3f} before, {after:.3f} after")
    axes.set_xticks(range(len(places)), places, fontsize=7)
    axes.set_xlim(-0.5, len(places) - 0.5)
    axes.set_xlabel("weight of the debate, judge")
