"""Shared parts of figures: a colour-blind-safe palette, panel layouts, lines with error bars, and tooltips."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
"""Okabe & Ito's palette with grey in place of yellow; each line also has a different marker."""
MARKERS = "osD^vPX*"
COLUMNS = 3
MOST = len(COLOURS)
TIP, SERIES, LEGEND = "tip|", "series|", "legend|"
"""Prefixes of the matplotlib group ids (gid) of points with a tooltip, of a method's line, and of a method's legend entry."""


def panels(count: int, width: float = 4.2, height: float = 3.4) -> tuple[Figure, list[Axes]]:
    """Return a figure with `count` panels, at most COLUMNS of them in a row, and the axes of the panels."""
    columns = min(count, COLUMNS)
    rows = math.ceil(count / COLUMNS)
    fig = Figure(figsize=(width * max(1, columns), height * max(1, rows)), layout="constrained")
    if not count:
        return fig, []
    all_axes = list(fig.subplots(rows, columns, squeeze=False).reshape(-1))
    for empty in all_axes[count:]:
        empty.remove()
    for axes in all_axes[:count]:
        _small(axes)
    return fig, all_axes[:count]


def bars(labels: Sequence[Sequence[str]]) -> tuple[Figure, list[Axes]]:
    """Return a figure with one panel per sequence of labels, stacked vertically, and the axes of the panels.

    The y-axis of each panel has one position per label, with the first label at the top.
    """
    widest = max((len(label) for panel in labels for label in panel), default=0)
    heights = [0.9 + 0.22 * len(panel) for panel in labels]
    fig = Figure(figsize=(3.6 + 0.062 * widest, 0.4 + sum(heights)), layout="constrained")
    if not labels:
        return fig, []
    all_axes = list(fig.subplots(len(labels), 1, squeeze=False, height_ratios=heights)[:, 0])
    for axes, panel in zip(all_axes, labels, strict=True):
        _small(axes)
        axes.set_yticks(range(len(panel)), panel, fontsize=7)
        axes.set_ylim(len(panel) - 0.5, -0.5)
        axes.set_ylabel("method")
    return fig, all_axes


def _small(axes: Axes) -> None:
    """Set the small font sizes of a panel."""
    axes.tick_params(labelsize=8)
    for axis in (axes.xaxis, axes.yaxis):
        axis.label.set_fontsize(9)


def series(axes: Axes, rows: pd.DataFrame, y: str, label: str, labels: Sequence[str]) -> None:
    """Draw one method's line over student size, with error bars from `<y>_low` to `<y>_high` and a tooltip on each point.

    Args:
        rows: with the columns size, n, `<y>`, `<y>_low` and `<y>_high`.
        labels: labels of all methods of the figure; the index of `label` sets its colour, marker and small horizontal offset.
    """
    rows = rows.sort_values("size")
    index = list(labels).index(label)
    colour, marker = COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]
    shifted = rows["size"] * math.exp(0.03 * (index - len(labels) / 2))
    bars = [(rows[y] - rows[f"{y}_low"]).fillna(0), (rows[f"{y}_high"] - rows[y]).fillna(0)]
    style: dict[str, Any] = {"color": colour, "marker": marker, "capsize": 2, "markersize": 4, "linewidth": 1.2}
    container = axes.errorbar(shifted, rows[y], bars, label=label, **style)
    for part in (container[0], *container[1], *container[2]):
        part.set_gid(f"{SERIES}{label}")
    for x, row in zip(shifted, rows.to_dict("records"), strict=True):
        interval = f" [{row[f'{y}_low']:.3f}, {row[f'{y}_high']:.3f}]" if math.isfinite(row[f"{y}_low"]) else ""
        tip(axes, x, row[y], f"{label}, {short(row['size'])} parameters: {row[y]:.3f}{interval}, n = {row['n']}")


def stacked(axes: Axes, rows: pd.DataFrame, colours: Mapping[str, str], labels: Sequence[str]) -> None:
    """Draw one horizontal bar per row. The bar has one part per column in `colours`, with a tooltip on each part."""
    left = pd.Series(0.0, index=rows.index)
    for name, colour in colours.items():
        word = name.replace("_", " ")
        axes.barh(range(len(rows)), rows[name], left=left, color=colour, label=word, height=0.75)
        for position, (value, start) in enumerate(zip(rows[name], left, strict=True)):
            tip(axes, start + value / 2, position, f"{labels[position]}: {word} {value:.3f}")
        left = left + rows[name]


def tip(axes: Axes, x: float, y: float, text: str) -> None:
    """Add an invisible point with the tooltip `text`."""
    axes.plot([x], [y], marker="o", markersize=10, alpha=0, linestyle="none", label="_", gid=f"{TIP}{text}")


def sizes(axes: Axes, parameters: pd.Series) -> None:
    """Set up a logarithmic x-axis of student sizes."""
    axes.set_xlabel("parameters of the student")
    if parameters.dropna().empty:
        return
    axes.set_xscale("log")
    axes.set_xlim(parameters.min() / 1.5, parameters.max() * 1.5)
    ticks = sorted(parameters.dropna().unique())
    axes.set_xticks(ticks, [short(size) for size in ticks], fontsize=8 if len(ticks) < 6 else 6)
    axes.minorticks_off()


def legend(fig: Figure) -> None:
    """Add one legend below all panels. A label that several panels share is listed once."""
    labels: dict[str, Any] = {}
    for axes in fig.axes:
        handles, names_ = axes.get_legend_handles_labels()
        labels |= {name: handle for handle, name in zip(handles, names_, strict=True) if name not in labels}
    if labels:
        columns = max(1, int(fig.get_figwidth() / (0.5 + 0.075 * max(map(len, labels)))))
        rows = math.ceil(len(labels) / min(columns, len(labels)))
        fig.set_figheight(fig.get_figheight() + 0.2 + 0.17 * rows)
        box = fig.legend(labels.values(), labels, fontsize=7, loc="outside lower center", ncols=min(columns, len(labels)))
        for text in box.get_texts():
            text.set_gid(f"{LEGEND}{text.get_text()}")


def short(size: float) -> str:
    """Format a number of parameters, such as 1.2M or 60k."""
    for unit, name in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if size >= unit:
            return f"{size / unit:.3g}{name}"
    return f"{size:.3g}"


def one_line(*words: object) -> str:
    """Join words into one line, skipping empty words."""
    return " ".join(" ".join(map(str, words)).split())


def names(rows: pd.DataFrame) -> pd.Series:
    """Return the legend label of each row: method, head (if not the task's most frequent) and options that differ."""
    usual = rows.groupby("task")["head"].transform(lambda head: head.mode().iloc[0])
    words = [rows["method"], ("(" + rows["head"] + ")").where(rows["head"] != usual, "")]
    words += [rows["method_options"]] + ([rows["other_options"]] if rows["other_options"].nunique() > 1 else [])
    return pd.concat(words, axis=1).agg(" ".join, axis=1).str.split().str.join(" ")


def lines(rows: pd.DataFrame) -> pd.DataFrame:
    """Select the lines of a figure over student size, at most one per colour, and add their names as the column `line`.

    For each task and head, only the setting with the most runs is kept. Methods with default options are selected first, then
    methods with other options; within each kind, methods run at more sizes come first.
    """
    if rows.empty:
        return rows.assign(line="")
    runs = rows.groupby(["task", "head", "other_options"])["n"].sum().sort_values(ascending=False).reset_index()
    rows = rows.merge(runs.drop_duplicates(["task", "head"])[["task", "head", "other_options"]])
    rows = rows.assign(line=names(rows))
    order = rows.groupby("line", sort=False).agg(own=("method_options", "max"), sizes=("size", "nunique")).reset_index()
    order = order.sort_values(
        ["own", "sizes"], key=lambda column: column != "" if column.name == "own" else -column, kind="stable"
    )
    selected = order["line"].head(MOST)
    return rows[rows["line"].isin(selected)].sort_values(
        "line", key=lambda line: line.map(list(rows["line"]).index), kind="stable"
    )


def title(axes: Axes, *words: object) -> None:
    """Set the title of a panel."""
    axes.set_title(", ".join(map(str, words)), fontsize=9)
