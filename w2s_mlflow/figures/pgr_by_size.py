"""PGR against student size, one panel per domain and supervisor, one line per method (the paper's Figure 1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from w2s_mlflow import stats
from w2s_mlflow.figures import _drawing
from w2s_mlflow.tables import DETERMINED, IMPORTED, pgr

FRAMES = ("outcomes",)
CAPTION = (
    "PGR against student size. For one task: Fieller's 95% interval over n seeds and test groups. For several tasks (dots): "
    "the median of the n tasks, with its 95% interval if n is at least 6. Undetermined pairs are not shown; if there are "
    "several settings, the one with the most runs is shown. Imported runs are not shown, because their sizes are unknown."
)
VALUE = ("pgr", "pgr_low", "pgr_high")


def figure(outcomes: pd.DataFrame) -> Figure:
    """Draw one panel per domain and supervisor; a panel in which no PGR could be determined has only a note."""
    outcomes = outcomes[outcomes["head"] != IMPORTED]
    frame = pgr.table(outcomes)
    frame = frame[frame[["weak_accuracy", "ceiling_accuracy"]].notna().all(axis=1)]
    sizes = outcomes.drop_duplicates("strong").set_index("strong")["parameters"]
    domains = outcomes.drop_duplicates("task").set_index("task")["domain"]
    frame = _drawing.lines(frame.assign(size=frame["strong"].map(sizes), domain=frame["task"].map(domains)))
    labels, cells = list(frame["line"].unique()), list(frame.groupby(["domain", "weak"], sort=False))
    fig, panels = _drawing.panels(len(cells))
    for axes, ((domain, weak), rows) in zip(panels, cells, strict=True):
        _panel(axes, rows, labels)
        tasks = rows["task"].unique()
        _drawing.title(axes, domain if len(tasks) > 1 else tasks[0], f"supervisor {weak}")
    _drawing.legend(fig)
    return fig


def _panel(axes: Axes, rows: pd.DataFrame, labels: Sequence[str]) -> None:
    axes.axhline(0, color="0.6", linewidth=0.8)
    axes.axhline(1, color="0.6", linewidth=0.8, linestyle=":")
    axes.set_ylabel("performance gap recovered")
    rows = rows[rows["pgr_status"].isin(DETERMINED)]
    _drawing.sizes(axes, rows["size"])
    if rows.empty:
        axes.text(0.5, 0.5, "PGR undetermined", ha="center", transform=axes.transAxes)
    many_tasks = rows["task"].nunique() > 1
    for name, line in rows.groupby("line", sort=False):
        if many_tasks:
            axes.plot(line["size"], line["pgr"], ".", color="0.7", markersize=4)
            line = pd.DataFrame([_median(size, tasks) for size, tasks in line.groupby("size")])
        _drawing.series(axes, line, "pgr", str(name), labels)


def _median(size: Any, tasks: pd.DataFrame) -> dict[str, Any]:
    return dict(zip(VALUE, stats.median_interval(tasks["pgr"]), strict=True)) | {"size": size, "n": len(tasks)}
