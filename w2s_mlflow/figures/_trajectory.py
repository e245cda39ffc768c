"""Lines over iterations, and the figure of accuracy by iteration in one facilitation run."""

from __future__ import annotations

import math
from collections.abc import Iterable

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from w2s_mlflow.figures import _drawing

LOOKS = {"weak": ("o", "-", 0.0), "strong": ("s", "--", -0.5)}
"""Marker, line style and x-offset of each model; a strong model is between the iterations that it learns from and teaches."""
WORDS = {"weak": "weak model", "strong": "strong model"}


def figure(rows: pd.DataFrame, task: str, part: str, ceiling: float) -> Figure:
    """Draw accuracy by iteration: the weak supervisor at 0, then each iteration's strong model and the weak model it taught.

    Args:
        rows: with the columns iteration, model (weak or strong), name and accuracy.
        ceiling: accuracy of the strong model trained on ground truth, drawn as a line; NaN without a ceiling.
    """
    drawn, (axes,) = _drawing.panels(1, 4.6, 3.2)
    for (model, own), colour in zip(rows.groupby("model", sort=False), _drawing.COLOURS, strict=False):
        label = f"{WORDS[str(model)]}, {own['name'].iloc[0]}"
        line(axes, own["iteration"], own["accuracy"], str(model), color=colour, label=label)
        for iteration, accuracy in zip(own["iteration"], own["accuracy"], strict=True):
            place = iteration + LOOKS[str(model)][2], accuracy
            axes.annotate(f"{accuracy:.3f}", place, (0, 5), textcoords="offset points", ha="center", fontsize=7)
    if math.isfinite(ceiling):
        axes.axhline(ceiling, color="0.5", linewidth=0.8, linestyle=":", label="ceiling")
    iterations(axes)
    axes.set_ylabel(f"accuracy on {part}")
    axes.margins(x=0.08, y=0.15)
    _drawing.title(axes, task, "who has taught whom")
    _drawing.legend(drawn)
    return drawn


def line(axes: Axes, iteration: pd.Series, accuracy: pd.Series, model: str, **look: object) -> None:
    """Draw one model's line over iterations."""
    marker, style, place = LOOKS[model]
    axes.plot(iteration + place, accuracy, marker=marker, linestyle=style, linewidth=1.2, markersize=5, **look)  # type: ignore[arg-type]


def means(axes: Axes, place: pd.Series, rows: pd.DataFrame, name: str, model: str, tips: Iterable[str], **look: object) -> None:
    """Draw a line of one model's means, with error bars from `<name>_low` to `<name>_high` and a tooltip on each point."""
    line(axes, place, rows[name], model, **look)
    place = place + LOOKS[model][2]
    bars = [(rows[name] - rows[f"{name}_low"]).fillna(0), (rows[f"{name}_high"] - rows[name]).fillna(0)]
    axes.errorbar(place, rows[name], bars, fmt="none", ecolor=str(look["color"]), capsize=2, linewidth=0.8)
    for where, value, tip in zip(place, rows[name], tips, strict=True):
        _drawing.tip(axes, where, value, tip)


def iterations(axes: Axes, label: str = "iteration (0: the weak supervisor)") -> None:
    """Set up an x-axis of integer iterations with the given label."""
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel(label)
