"""Effect of alignment (eq. 2) on the judge's preference D and on test accuracy, by iteration if there are several."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from w2s_mlflow.figures import _drawing, _trajectory
from w2s_mlflow.tables import alignment as table

CAPTION = (
    "Aligned models on held-out questions. Left: the mean D, the judge's log-odds for the strong side; right: test "
    "accuracy. If all models had one iteration, hollow points are plain students, filled points are aligned models, and a "
    "line joins the two models of a seed. If there are several iterations, the panel shows the gain over the plain student "
    "(iteration 0) of the same seed, means over n seeds with 95% t intervals, for at most eight settings; the table has all."
)
FRAMES = ("alignments",)
SHOWN = {"preference": "mean D", "accuracy": "test accuracy"}


def figure(alignments: pd.DataFrame) -> Figure:
    """Draw two panels per task and model pair: one of the judge's preference D, and one of test accuracy.

    Each setting (such as lambda and judge) has one position on the x-axis or, if there are several iterations, one line.
    """
    cells = list(alignments.groupby(["task", "weak", "strong"], sort=False))
    fig, panels = _drawing.panels(len(SHOWN) * len(cells))
    for number, (key, rows) in enumerate(cells):
        show = _iterations if rows["iteration"].max() > 1 else _pairs
        for (name, label), axes in zip(SHOWN.items(), panels[len(SHOWN) * number :], strict=False):
            show(axes, rows, name, label)
            _drawing.title(axes, key[0], f"{key[1]} → {key[2]}")
    _drawing.legend(fig)
    return fig


def _pairs(axes: Axes, rows: pd.DataFrame, name: str, label: str) -> None:
    settings = _names(rows)
    names = list(dict.fromkeys(settings))
    for setting, row in zip(settings, rows.to_dict("records"), strict=True):
        position, before, after = names.index(setting), row[f"{name}_before"], row[f"{name}_after"]
        axes.plot([position - 0.15, position + 0.15], [before, after], color="0.7", linewidth=0.8, zorder=1)
        axes.plot(position - 0.15, before, "o", color=_drawing.COLOURS[0], fillstyle="none", markersize=5)
        axes.plot(position + 0.15, after, "o", color=_drawing.COLOURS[1], markersize=5)
        _drawing.tip(axes, position + 0.15, after, f"{setting}, seed {row['seed']}: {before:.3f} before, {after:.3f} after")
    axes.set_xticks(range(len(names)), names, fontsize=7)
    axes.set_xlim(-0.5, len(names) - 0.5)
    axes.set_xlabel("weight of the debate, judge")
    axes.set_ylabel(label)


def _iterations(axes: Axes, rows: pd.DataFrame, name: str, label: str) -> None:
    """Draw the mean gain of each setting over iterations, starting at 0 for the plain student (iteration 0)."""
    frame = table.table(rows)
    frame["line"] = _names(frame)
    # Lines with the most iterations come first.
    lines = sorted(frame.groupby("line", sort=False), key=lambda line: -len(line[1]))[: _drawing.MOST]
    axes.axhline(0, color="0.5", linewidth=0.8, linestyle=":")
    for number, (setting, group) in enumerate(lines):
        offset = 0.03 * (number - (len(lines) - 1) / 2)
        start = group.iloc[:1].assign(
            iteration=0, **dict.fromkeys((f"{name}_gain{bound}" for bound in ("", "_low", "_high")), 0.0)
        )
        points = pd.concat([start, group])
        tips = [f"{setting}: {_tip(row, name)}" for row in points.to_dict("records")]
        style = {"color": _drawing.COLOURS[number], "label": str(setting)}
        _trajectory.means(axes, points["iteration"] + offset, points, f"{name}_gain", "weak", tips, **style)
    _trajectory.iterations(axes, "iteration (0: the plain student)")
    axes.set_ylabel(f"gain in {label}")


def _tip(row: Mapping[Hashable, Any], name: str) -> str:
    gain, before = row[f"{name}_gain"], row[f"{name}_before"]
    return f"{gain:+.3f} over the plain student's {before:.3f}, iteration {row['iteration']}, n = {row['n']}"


def _names(rows: pd.DataFrame) -> list[str]:
    """Return a name for each row: lambda, judge, and other options that differ between rows."""
    varying = [name for name in ("opponent", "kl", "evidence_spans") if rows[name].nunique() > 1]
    names = []
    for row in rows.to_dict("records"):
        words = [
            f"λ = {row['debate_weight']}",
            row["judge"],
            *(f"{name} {row[name]}" for name in varying),
            row["other_options"],
        ]
        names.append(", ".join(filter(None, words)))
    return names
