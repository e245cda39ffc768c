"""Aligned models beside the plain students they would be at lambda = 0: accuracy, and how far the judge is won over (eq. 2)."""

from __future__ import annotations

import pandas as pd

from w2s_mlflow import stats

CAPTION = (
    "Aligned models beside plain students on held-out questions, means over n seeds: test accuracy, its gain with a 95% t "
    "interval over seeds and the paired p; the mean D (log-odds for the strong side) and its gain likewise; the win rate; and "
    "the guards against a collapse at the end of the training: entropy (1: anything may be shown, 0: always the same) and "
    "words of evidence."
)
FRAMES = ("alignments",)
KEYS = ["task", "weak", "strong", "judge", "opponent", "lam", "kl", "pieces", "setting"]
COMPARED = ("accuracy", "preference")
COLUMNS = [*KEYS, "n"]
COLUMNS += [f"{name}_{part}" for name in COMPARED for part in ("before", "after", "gain", "gain_low", "gain_high", "p")]
COLUMNS += ["win_rate_before", "win_rate_after", "entropy", "words"]


def table(alignments: pd.DataFrame) -> pd.DataFrame:
    """One row per models, judge, and weights of the debate."""
    rows = []
    for key, found in alignments.groupby(KEYS, sort=False):
        row = dict(zip(KEYS, key, strict=True)) | {"n": len(found)}
        for name in COMPARED:
            row |= _compared(found, name)
        row |= {name: float(found[name].mean()) for name in ("win_rate_before", "win_rate_after", "entropy", "words")}
        rows.append(row)
    return pd.DataFrame(rows, columns=COLUMNS)


def _compared(found: pd.DataFrame, name: str) -> dict[str, float]:
    before, after = found[f"{name}_before"], found[f"{name}_after"]
    gain = stats.seed_interval(after - before)
    p = stats.paired_t_test(before, after).p if len(found) > 1 else float("nan")
    values = {"before": float(before.mean()), "after": float(after.mean()), "gain": gain.mean}
    return {
        f"{name}_{part}": value for part, value in (values | {"gain_low": gain.low, "gain_high": gain.high, "p": p}).items()
    }
