"""Test accuracy against student size, with the accuracies of supervisor and ceiling (the paper's Figure 2)."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from w2s_mlflow.figures import _drawing
from w2s_mlflow.tables import IMPORTED, pgr

FRAMES = ("outcomes",)
CAPTION = (
    "Test accuracy of students, mean over n seeds with its 95% t interval. Dashed line: the supervisor; grey squares: the "
    "ceiling of each size, means over seeds. If there are several settings, the one with the most runs is shown. "
    "Imported runs are not shown, because their sizes are unknown."
)


def figure(outcomes: pd.DataFrame) -> Figure:
    """Draw one panel per task and supervisor."""
    outcomes = outcomes[outcomes["head"] != IMPORTED]
    frame = pgr.table(outcomes)
    frame = frame[frame["weak_accuracy"].notna()]
    sizes = outcomes.drop_duplicates("strong").set_index("strong")["parameters"]
    frame = _drawing.lines(frame.assign(size=frame["strong"].map(sizes)))
    labels, cells = list(frame["line"].unique()), list(frame.groupby(["task", "weak"], sort=False))
    fig, panels = _drawing.panels(len(cells))
    for axes, ((task, weak), rows) in zip(panels, cells, strict=True):
        _panel(axes, rows, labels)
        _drawing.title(axes, task, f"supervisor {weak}")
    _drawing.legend(fig)
    return fig


def _panel(axes: Axes, rows: pd.DataFrame, labels: Sequence[str]) -> None:
    axes.set_ylabel("test accuracy")
    _drawing.sizes(axes, rows["size"])
    main = rows[rows["head"] == rows["head"].mode().iloc[0]]
    axes.axhline(main["weak_accuracy"].mean(), color="0.4", linewidth=1, linestyle="--", label="supervisor")
    ceiling = main.dropna(subset=["ceiling_accuracy"]).groupby("size")["ceiling_accuracy"].mean()
    if len(ceiling):
        axes.plot(ceiling.index, ceiling, "s-", color="0.6", markersize=5, linewidth=1, label="ceiling")
    for name, line in rows.groupby("line", sort=False):
        _drawing.series(axes, line, "accuracy", str(name), labels)
