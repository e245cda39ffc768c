"""Agreement with the supervisor against student size, one line per method (the paper's Figure 3)."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from w2s_mlflow.figures import _drawing
from w2s_mlflow.tables import agreement

FRAMES = ("outcomes",)
CAPTION = (
    "Share of test rows on which student and supervisor give the same answer, mean over n seeds with its 95% t interval. If "
    "there are several settings, the one with the most runs is shown."
)


def figure(outcomes: pd.DataFrame) -> Figure:
    """Draw one panel per task and supervisor."""
    frame = _drawing.lines(agreement.table(outcomes).rename(columns={"parameters": "size"}))
    labels, cells = list(frame["line"].unique()), list(frame.groupby(["task", "weak"], sort=False))
    fig, panels = _drawing.panels(len(cells))
    for axes, ((task, weak), rows) in zip(panels, cells, strict=True):
        axes.set_ylabel("agreement with the supervisor")
        _drawing.sizes(axes, rows["size"])
        for name, line in rows.groupby("line", sort=False):
            _drawing.series(axes, line, "agreement", str(name), labels)
        _drawing.title(axes, task, f"supervisor {weak}")
    _drawing.legend(fig)
    return fig
