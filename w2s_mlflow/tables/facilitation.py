"""Facilitation (Definition 3): the weak model's gain from training on the strong model's labels, by iteration."""

from __future__ import annotations

from typing import Any

import pandas as pd

from w2s_mlflow import stats

CAPTION = (
    "Test accuracy of the weak supervisor M_W (`weak_accuracy`), of the strong model M_S that teaches (`strong_accuracy`) and "
    "of the weak model M'_W that it has taught (`accuracy`), means over n seeds with 95% t intervals; `gain`, M'_W minus M_W, "
    "paired by seed, with its interval, p (two-sided, not corrected) and Holm's p within this table; agreement of M'_W with "
    "M_S and with M_W. From iteration 2 on, M_S has learned the labels of the M'_W before. `gold` names the part whose "
    "ground truth M_S has learned."
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
        dict(zip(keys, key, strict=True)) | _row(found)
        for key, found in facilitations.sort_values("iteration", kind="stable").groupby(keys, sort=False)
    ]
    found = pd.DataFrame(rows, columns=COLUMNS)
    found["p_holm"] = stats.holm(found["p"].to_numpy(dtype=float))
    return found


def _row(found: pd.DataFrame) -> dict[str, Any]:
    """Return the statistics of one iteration over its seeds."""
    values = {name: found[name] for name in MODELS} | {"gain": found["accuracy"] - found["weak_accuracy"]}
    row: dict[str, Any] = {"n": len(found), "p": float("nan")}
    for name, value in values.items():
        row |= stats.seed_interval(value).named(name)
    if len(found) > 1:
        row["p"] = stats.paired_t_test(found["weak_accuracy"], found["accuracy"]).p
    return row | {name: float(found[name].mean()) for name in ("agreement", "weak_agreement")}
