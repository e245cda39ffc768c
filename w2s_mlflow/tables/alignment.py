"""Aligned models compared with plain students (lambda = 0): accuracy, and how strongly the judge prefers them (eq. 2)."""

from __future__ import annotations

import pandas as pd

from w2s_mlflow import stats

CAPTION = (
    "Aligned models and plain students on held-out questions, by iteration of `align` (`iterations` is the largest number of "
    "iterations of any seed); means over n seeds. The columns of test accuracy: before and after alignment; the gain over the "
    "plain student, with a 95% t interval over seeds and the paired p; the step from the previous iteration (in iteration 1, "
    "from the plain student), with a 95% t interval over the n_step seeds that have both. Mean D, the judge's log-odds for "
    "the strong side, has the same columns. The table also has the win rate, and two checks for collapse at the end of "
    "training: entropy (1: uniform over the evidence, 0: always the same evidence) and the number of words of evidence."
)
FRAMES = ("alignments",)
KEYS = ["task", "weak", "strong", "judge", "opponent", "debate_weight", "kl", "evidence_spans", "other_options"]
"""Columns by which rows are grouped, besides `iteration`."""
COMPARED = ("accuracy", "preference")
PARTS = ("before", "after", "gain", "gain_low", "gain_high", "p", "step", "step_low", "step_high")
COLUMNS = [*KEYS, "iteration", "iterations", "n", "n_step"]
COLUMNS += [f"{name}_{part}" for name in COMPARED for part in PARTS]
COLUMNS += ["win_rate_before", "win_rate_after", "entropy", "evidence_words"]


def table(alignments: pd.DataFrame) -> pd.DataFrame:
    """Return one row per pair of models, judge, debate options and iteration."""
    rows = []
    keys = [*KEYS, "iteration"]
    for key, group in _stepped(alignments).sort_values("iteration", kind="stable").groupby(keys, sort=False):
        row = dict(zip(keys, key, strict=True)) | {"iterations": int(group["iterations"].max()), "n": len(group)}
        row["n_step"] = int(group["preference_last"].notna().sum())
        for name in COMPARED:
            row |= _compared(group, name)
        row |= {name: float(group[name].mean()) for name in ("win_rate_before", "win_rate_after", "entropy", "evidence_words")}
        rows.append(row)
    return pd.DataFrame(rows, columns=COLUMNS)


def _stepped(alignments: pd.DataFrame) -> pd.DataFrame:
    """Add the columns `*_last`: the values of the same seed in the previous iteration or, in iteration 1, before alignment."""
    index = [*KEYS, "seed", "iteration"]
    earlier = alignments[index].assign(iteration=alignments["iteration"] + 1)
    earlier = earlier.assign(**{f"{name}_last": alignments[f"{name}_after"] for name in COMPARED})
    joined = alignments.merge(earlier, how="left", on=index, validate="many_to_one")
    for name in COMPARED:
        joined[f"{name}_last"] = joined[f"{name}_last"].where(joined["iteration"] > 1, joined[f"{name}_before"])
    return joined


def _compared(group: pd.DataFrame, name: str) -> dict[str, float]:
    before, after = group[f"{name}_before"], group[f"{name}_after"]
    checkpoints, stepped = group["checkpoints"], (after - group[f"{name}_last"]).dropna()
    gain = stats.seed_interval(after - before, units=list(checkpoints))
    step = stats.seed_interval(stepped if len(stepped) else [float("nan")], units=list(checkpoints.loc[stepped.index]))
    p = stats.paired_t_test(before, after, units=list(checkpoints)).p if len(group) > 1 else float("nan")
    values = {"before": float(before.mean()), "after": float(after.mean()), "p": p}
    for part, interval in (("gain", gain), ("step", step)):
        values |= interval.named(part)
    return {f"{name}_{part}": values[part] for part in PARTS}
