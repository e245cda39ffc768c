"""Forest plot: difference in test accuracy between each method and the baseline, paired by seed."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from w2s_mlflow import stats
from w2s_mlflow.figures import _drawing
from w2s_mlflow.tables import PAIR, paired_tests

FRAMES = ("outcomes",)
CAPTION = (
    "Test accuracy of each method minus the baseline's with the same seed (dots), and their mean with its 95% t interval "
    "over n seeds."
)
KEYS = ["task", "weak", "strong", "head"]
Lines = list[tuple[str, pd.Series, list[object]]]


def figure(outcomes: pd.DataFrame) -> Figure:
    """Draw one panel per task, model pair and head, with one line per method that shares at least two seeds with a baseline."""
    students = outcomes[outcomes["weak_accuracy"].notna()]
    cells = [(key, lines) for key, rows in students.groupby(KEYS, sort=False) if (lines := _lines(rows))]
    fig, panels = _drawing.bars([[label for label, *_ in lines] for _, lines in cells])
    for axes, (key, lines) in zip(panels, cells, strict=True):
        for position, (label, differences, units) in enumerate(lines):
            interval = stats.seed_interval(differences, units=units)
            axes.plot(differences, [position] * len(differences), ".", color="0.6", markersize=5)
            bounds = [[interval.mean - interval.low], [interval.high - interval.mean]]
            axes.errorbar(interval.mean, position, xerr=bounds, fmt="D", color=_drawing.COLOURS[0], markersize=4, capsize=2)
            text = f"{label}: {interval.mean:+.3f} [{interval.low:+.3f}, {interval.high:+.3f}], n = {len(differences)}"
            _drawing.tip(axes, interval.mean, position, text)
        axes.axvline(0, color="0.4", linewidth=0.8)
        axes.set_xlabel("test accuracy, method minus baseline")
        task, weak, strong, head = key
        _drawing.title(axes, task, f"{weak} → {strong}", head)
    return fig


def _lines(rows: pd.DataFrame) -> Lines:
    """Return the label of each method, its accuracy minus the baseline's by seed, and the seeds' checkpoints.

    Methods that share fewer than two seeds with the baseline have no line.
    """
    lines: Lines = []
    for _, pair in rows.groupby(PAIR, sort=False):
        groups = {name: group.set_index("seed") for name, group in pair.groupby(paired_tests.name(pair), sort=False)}
        methods = {name: group["accuracy"] for name, group in groups.items()}
        setting = pair["other_options"].iloc[0] if rows["other_options"].nunique() > 1 else ""
        baseline = methods.pop("baseline", pd.Series(dtype=float))
        for name, values in methods.items():
            differences = (values - baseline).dropna().sort_index()
            if len(differences) > 1:
                units = list(groups[name].loc[differences.index, "checkpoints"])
                lines.append((f"{name} {setting}".strip(), differences, units))
    return lines
