"""Accuracy of judges on questions where exactly one of student and supervisor is right (Definition 4)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from w2s_mlflow.figures import _drawing
from w2s_mlflow.tables import debate as table

CAPTION = (
    "Accuracy of the judge on questions where exactly one of student and supervisor is right: means over n seeds with 95% t "
    "intervals. "
    "Hollow points: a judge who always believes the student; dashed line: chance."
)
FRAMES = ("debates",)


def figure(debates: pd.DataFrame) -> Figure:
    """Draw one panel per task and model pair, with one line per protocol, kind of evidence and judge."""
    frame = table.table(debates)
    cells = list(frame[frame["judge_accuracy"].notna()].groupby(["task", "weak", "strong"], sort=False))
    labels = [[_label(row) for row in rows.to_dict("records")] for _, rows in cells]
    fig, panels = _drawing.bars(labels)
    for axes, names, ((task, weak, strong), rows) in zip(panels, labels, cells, strict=True):
        axes.axvline(0.5, color="0.7", linewidth=0.8, linestyle="--")
        for position, (name, row) in enumerate(zip(names, rows.to_dict("records"), strict=True)):
            low, high = (row[f"judge_accuracy_{bound}"] for bound in ("low", "high"))
            axes.plot([low, high], [position, position], color=_drawing.COLOURS[0], linewidth=1.2)
            axes.plot(row["judge_accuracy"], position, "o", color=_drawing.COLOURS[0], markersize=5)
            axes.plot(row["always_strong_accuracy"], position, "o", color=_drawing.COLOURS[1], fillstyle="none", markersize=5)
            text = f"{name}: {row['judge_accuracy']:.3f}, an always-strong judge {row['always_strong_accuracy']:.3f}"
            _drawing.tip(axes, row["judge_accuracy"], position, text)
        axes.set_xlabel("accuracy of the judge where exactly one side is right")
        axes.set_ylabel("protocol, evidence, judge")
        _drawing.title(axes, task, f"{weak} → {strong}")
    return fig


def _label(row: Mapping[Any, Any]) -> str:
    evidence = "" if row["protocol"] == "no_explanation" else f", {row['evidence_spans']} by {row['explainer']}"
    turns = f", {row['turns']} turns" if str(row["turns"]) != "1" else ""
    return f"{row['protocol']}{evidence}{turns}, {row['judge']}, n = {row['n']}"
