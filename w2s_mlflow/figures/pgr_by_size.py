"""PGR against the size of the student, one panel per task, one line per method (the paper's Figure 1)."""

from __future__ import annotations

import math
from typing import cast

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from w2s_mlflow.tables import pgr

CAPTION = "PGR against student size; bars: Fieller's 95% intervals over seeds and test groups; undetermined pairs are left out."
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe & Ito's palette, told apart by the colour-blind; the markers differ as well."""
MARKERS = "osD^vP"


def figure(outcomes: pd.DataFrame) -> Figure:
    """The figure; a task without a determined PGR has an empty panel that says so."""
    found = pgr.table(outcomes)
    found = found[found[["weak_accuracy", "ceiling_accuracy"]].notna().all(axis=1)]
    sizes = outcomes.drop_duplicates("strong").set_index("strong")["parameters"]
    panels = list(found.groupby(["task", "weak"], sort=False))
    drawn = Figure(figsize=(4.2 * max(1, len(panels)), 3.4), layout="constrained")
    for axes, ((task, weak), rows) in zip(_axes(drawn, len(panels)), panels, strict=True):
        _panel(axes, rows.assign(size=rows["strong"].map(sizes)))
        axes.set_title(f"{task}, supervisor {weak}, n = {rows['n'].max()} seeds", fontsize=9)
    return drawn


def _axes(drawn: Figure, count: int) -> list[Axes]:
    return list(drawn.subplots(1, max(1, count), squeeze=False)[0][:count])


def _panel(axes: Axes, rows: pd.DataFrame) -> None:
    axes.axhline(0, color="0.6", linewidth=0.8)
    axes.axhline(1, color="0.6", linewidth=0.8, linestyle=":")
    axes.set_xlabel("parameters of the student")
    axes.set_ylabel("performance gap recovered")
    rows = rows[rows["pgr_status"] == "ok"]
    if rows.empty:
        axes.text(0.5, 0.5, "PGR undetermined", ha="center", transform=axes.transAxes)
        return
    lines = list(rows.groupby(["method", "head", "variant"], sort=False))
    for index, (key, line) in enumerate(lines):
        method, head, variant = cast(tuple[str, str, str], key)
        line = line.sort_values("size")
        shifted = line["size"] * math.exp(0.03 * (index - len(lines) / 2))  # so that bars of one size do not overlap
        bars = [line["pgr"] - line["pgr_low"], line["pgr_high"] - line["pgr"]]
        label = " ".join(word for word in (method, f"({head})" if rows["head"].nunique() > 1 else "", variant) if word)
        colour, marker = COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]
        axes.errorbar(
            shifted, line["pgr"], bars, label=label, color=colour, marker=marker, capsize=2, markersize=4, linewidth=1.2
        )
    axes.set_xscale("log")
    axes.set_xlim(rows["size"].min() / 1.5, rows["size"].max() * 1.5)
    axes.set_xticks(sorted(rows["size"].unique()), [_short(size) for size in sorted(rows["size"].unique())])
    axes.minorticks_off()
    axes.legend(fontsize=7)


def _short(size: float) -> str:
    return f"{size / 1e6:.3g}M" if size >= 1e6 else f"{size / 1e3:.3g}k"
