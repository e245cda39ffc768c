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
Lines = list[tuple[str, pd.Series]]


def figure(outcomes: pd.DataFrame) -> Figure:
    """Draw one panel per task, model pair and head, with one line per method that shares at least two seeds with a baseline."""
    students = outcomes[outcomes["weak_correct"].notna()]
    cells = [(key, lines) for key, rows in students.groupby(KEYS, sort=False) if (lines := _lines(rows))]
    drawn, panels = _drawing.bars([[label for label, _ in lines] for _, lines in cells])
    for axes, (key, lines) in zip(panels, cells, strict=True):
        for place, (label, differences) in enumerate(lines):
            found = stats.seed_interval(differences)
            axes.plot(differences, [place] * len(differences), ".", color="0.6", markersize=5)
            bounds = [[found.mean - found.low], [found.high - found.mean]]
            axes.errorbar(found.mean, place, xerr=bounds, fmt="D", color=_drawing.COLOURS[0], markersize=4, capsize=2)
            said = f"{label}: {found.mean:+.3f} [{found.low:+.3f}, {found.high:+.3f}], n = {len(differences)}"
            _drawing.tip(axes, found.mean, place, said)
        axes.axvline(0, color="0.4", linewidth=0.8)
        axes.set_xlabel("test accuracy, method minus baseline")
        task, weak, strong, head = key
        _drawing.title(axes, task, f"{weak} → {strong}", head)
    return drawn


def _lines(rows: pd.DataFrame) -> Lines:
    """Return the label of each method, and its difference from the baseline of its setting by seed; at least two seeds each."""
    found: Lines = []
    for _, pair in rows.groupby(PAIR, sort=False):
        methods = {name: own.set_index("seed")["accuracy"] for name, own in pair.groupby(paired_tests.name(pair), sort=False)}
        setting = pair["other_options"].iloc[0] if rows["other_options"].nunique() > 1 else ""
        plain = methods.pop("baseline", pd.Series(dtype=float))
        for name, values in methods.items():
            differences = (values - plain).dropna().sort_index()
            if len(differences) > 1:
                found.append((f"{name} {setting}".strip(), differences))
    return found
