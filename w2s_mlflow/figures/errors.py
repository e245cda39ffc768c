"""Types of errors that students make (the paper's Figure 5)."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from w2s_mlflow.figures import _drawing
from w2s_mlflow.tables import errors as table

CAPTION = (
    "Test errors of students by type, as shares of all errors; means over n seeds. The table `errors` has their intervals, "
    "and the shares with randomly drawn tokens as evidence. The paper reports 70% for quote selection and evidence "
    "extraction together, and 20% for overfitting."
)
FRAMES = ("errors",)
COLOURS = dict(zip(table.TYPES, ("#D55E00", "#0072B2", "#56B4E9", "#999999"), strict=True))


def figure(errors: pd.DataFrame) -> Figure:
    """Draw one panel per task and model pair, with one bar per method and options."""
    cells = list(table.table(errors).groupby(["task", "weak", "strong"], sort=False))
    labels = [
        [
            f"{_drawing.one_line(row['method'], row['method_options'], row['other_options'])}, n = {row['n']}"
            for row in rows.to_dict("records")
        ]
        for _, rows in cells
    ]
    fig, panels = _drawing.bars(labels)
    for axes, names, ((task, weak, strong), rows) in zip(panels, labels, cells, strict=True):
        _drawing.stacked(axes, rows, COLOURS, names)
        axes.set_xlim(0, 1)
        axes.set_xlabel("share of test errors")
        _drawing.title(axes, task, f"{weak} → {strong}")
    _drawing.legend(fig)
    return fig
