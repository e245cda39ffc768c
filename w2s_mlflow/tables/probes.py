"""Linear probes before and after weak-to-strong training: how salient a concept is in the activations (Figure 4)."""

from __future__ import annotations

import pandas as pd

from w2s_mlflow import stats

CAPTION = (
    "Test accuracy of a logistic regression on frozen activations of the pretrained model (before) and of the student "
    "(after), at the layer chosen on its validation slice; means over n seeds. `gain` has its 95% t interval over seeds and "
    "the paired p. `layer` is the median layer after training; `selectivity` is the accuracy minus that of the same probe "
    "fitted on shuffled labels."
)
FRAMES = ("probes",)
KEYS = ["concept", "task", "weak", "strong", "method", "method_options", "other_options"]
COLUMNS = [*KEYS, "n", "before", "after", "gain", "gain_low", "gain_high", "p", "layer", "selectivity"]


def table(probes: pd.DataFrame) -> pd.DataFrame:
    """Return one row per concept, model pair, method and options."""
    rows = []
    for key, group in gains(probes).groupby(KEYS, sort=False):
        units = list(group["checkpoints"])
        gain = stats.seed_interval(group["after"] - group["before"], units=units)
        means = {name: float(group[name].mean()) for name in ("before", "after", "selectivity")}
        means |= gain.named("gain") | {"layer": float(group["layer"].median())}
        p = stats.paired_t_test(group["before"], group["after"], units=units).p if len(group) > 1 else float("nan")
        rows.append(dict(zip(KEYS, key, strict=True)) | {"n": len(group), "p": p} | means)
    return pd.DataFrame(rows, columns=COLUMNS)


def gains(probes: pd.DataFrame) -> pd.DataFrame:
    """Return one row per probe run and concept: accuracy before and after training, and layer and selectivity after it."""
    chosen = probes[probes["chosen"].astype(bool)]
    index = ["run_id", *KEYS, "seed", "checkpoints"]
    before, after = (chosen[chosen["model"] == model].set_index(index) for model in ("before", "after"))
    joined = after[["accuracy", "layer", "selectivity"]].rename(columns={"accuracy": "after"})
    return joined.assign(before=before["accuracy"]).dropna().reset_index()
