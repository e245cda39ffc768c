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
    "Aligned models on held-out questions: left the mean D, the judge's log-odds for the strong side, right the test accuracy. "
    "After one iteration: plain students hollow, aligned ones full, and a line joins the two of one seed. Where there are "
    "several iterations: the gain over the plain student (iteration 0) of the same seed, means over n seeds with 95% t "
    "intervals. A panel of iterations has room for eight settings; the table has all."
)
FRAMES = ("alignments",)
SHOWN = {"preference": "mean D", "accuracy": "test accuracy"}


def figure(alignments: pd.DataFrame) -> Figure:
    """Draw two panels per task and model pair, for D and for test accuracy.

    Each lambda and judge has one position on the x-axis or, if there are several iterations, one line.
    """
    cells = list(alignments.groupby(["task", "weak", "strong"], sort=False))
    drawn, panels = _drawing.panels(len(SHOWN) * len(cells))
    for number, (key, rows) in enumerate(cells):
        show = _iterations if rows["iteration"].max() > 1 else _pairs
        for (name, label), axes in zip(SHOWN.items(), panels[len(SHOWN) * number :], strict=False):
            show(axes, rows, name, label)
            _drawing.title(axes, key[0], f"{key[1]} → {key[2]}")
    _drawing.legend(drawn)
    return drawn


def _pairs(axes: Axes, rows: pd.DataFrame, name: str, label: str) -> None:
    settings = _names(rows)
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
    axes.set_ylabel(label)


def _iterations(axes: Axes, rows: pd.DataFrame, name: str, label: str) -> None:
    """Draw the mean gain of each setting over iterations, starting at 0 for the plain student (iteration 0)."""
    found = table.table(rows)
    found["line"] = _names(found)
    lines = sorted(found.groupby("line", sort=False), key=lambda line: -len(line[1]))[: _drawing.MOST]  # most iterations first
    axes.axhline(0, color="0.5", linewidth=0.8, linestyle=":")
    for number, (said, own) in enumerate(lines):
        aside = 0.03 * (number - (len(lines) - 1) / 2)
        start = own.iloc[:1].assign(
            iteration=0, **dict.fromkeys((f"{name}_gain{bound}" for bound in ("", "_low", "_high")), 0.0)
        )
        every = pd.concat([start, own])
        tips = [f"{said}: {_tip(row, name)}" for row in every.to_dict("records")]
        look = {"color": _drawing.COLOURS[number], "label": str(said)}
        _trajectory.means(axes, every["iteration"] + aside, every, f"{name}_gain", "weak", tips, **look)
    _trajectory.iterations(axes, "iteration (0: the plain student)")
    axes.set_ylabel(f"gain in {label}")


def _tip(row: Mapping[Hashable, Any], name: str) -> str:
    gain, before = row[f"{name}_gain"], row[f"{name}_before"]
    return f"{gain:+.3f} over the plain student's {before:.3f}, iteration {row['iteration']}, n = {row['n']}"


def _names(rows: pd.DataFrame) -> list[str]:
    """Return a name for each row: lambda, judge, and other options that differ between rows."""
    apart = [name for name in ("opponent", "kl", "evidence_spans") if rows[name].nunique() > 1]
    found = []
    for row in rows.to_dict("records"):
        words = [f"λ = {row['debate_weight']}", row["judge"], *(f"{name} {row[name]}" for name in apart), row["other_options"]]
        found.append(", ".join(filter(None, words)))
    return found
