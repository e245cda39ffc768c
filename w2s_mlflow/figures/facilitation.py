"""Accuracy of the weak model and of the strong model that teaches it, by facilitation iteration (Definition 3)."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from w2s_mlflow.figures import _drawing, _trajectory
from w2s_mlflow.tables import facilitation as table

CAPTION = (
    "Test accuracy of the weak model (circles; iteration 0 is the supervisor) and of the strong model that teaches it "
    "(squares, between the iteration whose labels it has learned and the one it teaches), means over n seeds with 95% t "
    "intervals. A panel has room for eight settings; the table has all."
)
FRAMES = ("facilitations",)
PANEL = ["task", "weak", "strong"]


def figure(facilitations: pd.DataFrame) -> Figure:
    """Draw one panel per task and model pair, with one colour per method and options."""
    found = table.table(facilitations)
    found["line"] = [_label(row) for row in found.to_dict("records")]
    cells = list(found.groupby(PANEL, sort=False))
    drawn, panels = _drawing.panels(len(cells))
    for axes, (key, rows) in zip(panels, cells, strict=True):
        longest_first = sorted(rows.groupby("line", sort=False), key=lambda line: -len(line[1]))
        lines = longest_first[: _drawing.MOST]
        for number, (label, own) in enumerate(lines):
            _line(axes, own, str(label), _drawing.COLOURS[number], 0.03 * (number - (len(lines) - 1) / 2))
        _trajectory.iterations(axes)
        axes.set_ylabel("test accuracy")
        _drawing.title(axes, key[0], f"{key[1]} → {key[2]}")
    _drawing.legend(drawn)
    return drawn


def _label(row: dict[object, object]) -> str:
    gold = "(gold)" if row["gold"] and row["method"] != "ceiling" else ""
    words = [row["method"], row["method_options"], row["other_options"], gold]
    return _drawing.one_line("taught by", *words)


def _line(axes: Axes, rows: pd.DataFrame, label: str, colour: str, aside: float) -> None:
    """Draw the weak model's line, starting at the supervisor, and the strong model's line."""
    first = rows[rows["iteration"] == rows["iteration"].min()]
    floor = {f"accuracy{bound}": first[f"weak_accuracy{bound}"] for bound in table.BOUNDS}
    start = first.assign(iteration=first["iteration"] - 1, **floor)
    for model, name, own in (("weak", "accuracy", pd.concat([start, rows])), ("strong", "strong_accuracy", rows)):
        look = {"color": colour, "label": label if model == "weak" else f"_{label}"}
        said = f"{label}: {_trajectory.WORDS[model]}"
        tips = [f"{said} {row[name]:.3f}, iteration {row['iteration']}, n = {row['n']}" for row in own.to_dict("records")]
        _trajectory.means(axes, own["iteration"] + aside, own, name, model, tips, **look)
