"""Concept saliency: linear probes before and after weak-to-strong training (the paper's Figure 4)."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from w2s_mlflow.figures import _drawing
from w2s_mlflow.tables import probes as table

CAPTION = (
    "Test accuracy of linear probes on the activations of the pretrained model (hollow points) and of the student (filled "
    "points), at the layer chosen on the validation slice. A line joins the two points of a seed; the number at the right "
    "is the mean gain over n seeds."
)
FRAMES = ("probes",)


def figure(probes: pd.DataFrame) -> Figure:
    """Draw one panel per task and model pair, with one line per concept, method and options."""
    keys = ["concept", "method", "method_options", "other_options"]
    cells = [(key, list(rows.groupby(keys, sort=False))) for key, rows in _cells(probes)]
    labels = [[f"{concept}, {_drawing.one_line(*words)}" for (concept, *words), _ in lines] for _, lines in cells]
    fig, panels = _drawing.bars(labels)
    for axes, names, ((task, weak, strong), lines) in zip(panels, labels, cells, strict=True):
        for position, (name, (_, rows)) in enumerate(zip(names, lines, strict=True)):
            for before, after in zip(rows["before"], rows["after"], strict=True):
                axes.plot([before, after], [position, position], color="0.7", linewidth=0.8, zorder=1)
            axes.plot(rows["before"], [position] * len(rows), "o", color=_drawing.COLOURS[0], fillstyle="none", markersize=5)
            axes.plot(rows["after"], [position] * len(rows), "o", color=_drawing.COLOURS[1], markersize=5)
            gain = (rows["after"] - rows["before"]).mean()
            before, after = rows["before"].mean(), rows["after"].mean()
            text = f"{name}: {before:.3f} before, {after:.3f} after, gain {gain:+.3f}, n = {len(rows)}"
            _drawing.tip(axes, after, position, text)
            axes.annotate(f"{gain:+.3f}", (1.02, position), xycoords=("axes fraction", "data"), fontsize=7, va="center")
        axes.set_xlabel("test accuracy of the probe")
        axes.set_ylabel("concept, method")
        _drawing.title(axes, f"student of {task}", f"{weak} → {strong}")
    return fig


def _cells(probes: pd.DataFrame) -> list[tuple[tuple[str, ...], pd.DataFrame]]:
    frame = table.gains(probes)
    return [(tuple(map(str, key)), rows) for key, rows in frame.groupby(["task", "weak", "strong"], sort=False)]
