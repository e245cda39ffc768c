"""Functions that draw lines over iterations, and the figure of one facilitation run (accuracy by iteration)."""

from __future__ import annotations

import math
from collections.abc import Iterable

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from w2s_mlflow.figures import _drawing

LOOKS = {"weak": ("o", "-", 0.0), "strong": ("s", "--", -0.5)}
"""Marker, line style and x-offset of each model. A strong model is drawn half an iteration before the weak model it teaches."""
WORDS = {"weak": "weak model", "strong": "strong model"}


def figure(rows: pd.DataFrame, task: str, part: str, ceiling: float) -> Figure:
    """Draw accuracy by iteration: the weak supervisor at 0, then each iteration's strong model and the weak model it taught.

    Args:
        rows: with the columns iteration, model (weak or strong), name and accuracy.
        ceiling: accuracy of the strong model trained on ground truth, drawn as a line; NaN without a ceiling.
    """
    fig, (axes,) = _drawing.panels(1, 4.6, 3.2)
    for (model, group), colour in zip(rows.groupby("model", sort=False), _drawing.COLOURS, strict=False):
        label = f"{WORDS[str(model)]}, {group['name'].iloc[0]}"
        line(axes, group["iteration"], group["accuracy"], str(model), color=colour, label=label)
        for iteration, accuracy in zip(group["iteration"], group["accuracy"], strict=True):
            position = iteration + LOOKS[str(model)][2], accuracy
            axes.annotate(f"{accuracy:.3f}", position, (0, 5), textcoords="offset points", ha="center", fontsize=7)
    if math.isfinite(ceiling):
        axes.axhline(ceiling, color="0.5", linewidth=0.8, linestyle=":", label="ceiling")
    iterations(axes)
    axes.set_ylabel(f"accuracy on {part}")
    axes.margins(x=0.08, y=0.15)
    _drawing.title(axes, task, "accuracy by iteration")
    _drawing.legend(fig)
    return fig


def line(axes: Axes, iteration: pd.Series, accuracy: pd.Series, model: str, **kwargs: object) -> None:
    """Draw one model's line over iterations."""
    marker, style, offset = LOOKS[model]
    axes.plot(iteration + offset, accuracy, marker=marker, linestyle=style, linewidth=1.2, markersize=5, **kwargs)  # type: ignore[arg-type]


def means(axes: Axes, x: pd.Series, rows: pd.DataFrame, name: str, model: str, tips: Iterable[str], **kwargs: object) -> None:
    """Draw a line of one model's means, with error bars from `<name>_low` to `<name>_high` and a tooltip on each point."""
    line(axes, x, rows[name], model, **kwargs)
    x = x + LOOKS[model][2]
    bars = [(rows[name] - rows[f"{name}_low"]).fillna(0), (rows[f"{name}_high"] - rows[name]).fillna(0)]
    axes.errorbar(x, rows[name], bars, fmt="none", ecolor=str(kwargs["color"]), capsize=2, linewidth=0.8)
    for position, value, tip in zip(x, rows[name], tips, strict=True):
        _drawing.tip(axes, position, value, tip)


def iterations(axes: Axes, label: str = "iteration (0: the weak supervisor)") -> None:
    """Set up an x-axis of integer iterations with the given label."""
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel(label)
