"""Facilitation (Definition 3): the weak model's gain from training on the strong model's labels, by iteration."""

from __future__ import annotations

from typing import Any

import pandas as pd

from w2s_mlflow import stats

CAPTION = (
    "Test accuracy of the weak supervisor M_W (`weak_accuracy`), of the strong model M_S that teaches (`strong_accuracy`) "
    "and of the weak model M'_W that it taught (`accuracy`), means over n seeds with 95% t intervals. `gain` is M'_W minus "
    "M_W, paired by seed, with its interval, p (two-sided, not corrected) and Holm's p within this table. `agreement` and "
    "`weak_agreement` are the agreement of M'_W with M_S and with M_W. From iteration 2 on, M_S was trained on the labels "
    "of the previous M'_W. `gold` names the part whose ground truth M_S was trained on."
)
FRAMES = ("facilitations",)
KEYS = ["task", "weak", "strong", "head", "method", "method_options", "other_options", "gold", "train_size", "test_size"]
"""Columns by which rows are grouped, besides `iteration`."""
MODELS = ("weak_accuracy", "strong_accuracy", "accuracy")
BOUNDS = ("", "_low", "_high")
COLUMNS = [*KEYS, "iteration", "n", *(f"{name}{bound}" for name in (*MODELS, "gain") for bound in BOUNDS), "p", "p_holm"]
COLUMNS += ["agreement", "weak_agreement"]


def table(facilitations: pd.DataFrame) -> pd.DataFrame:
    """Return one row per model pair, options and iteration."""
    keys = [*KEYS, "iteration"]
    rows = [
        dict(zip(keys, key, strict=True)) | _row(group)
        for key, group in facilitations.sort_values("iteration", kind="stable").groupby(keys, sort=False)
    ]
    frame = pd.DataFrame(rows, columns=COLUMNS)
    frame["p_holm"] = stats.holm(frame["p"].to_numpy(dtype=float))
    return frame


def _row(group: pd.DataFrame) -> dict[str, Any]:
    """Return the statistics of one iteration, computed over seeds."""
    values = {name: group[name] for name in MODELS} | {"gain": group["accuracy"] - group["weak_accuracy"]}
    units = list(group["checkpoints"])
    row: dict[str, Any] = {"n": len(group), "p": float("nan")}
    for name, value in values.items():
        row |= stats.seed_interval(value, units=units).named(name)
    if len(group) > 1:
        row["p"] = stats.paired_t_test(group["weak_accuracy"], group["accuracy"], units=units).p
    return row | {name: float(group[name].mean()) for name in ("agreement", "weak_agreement")}
