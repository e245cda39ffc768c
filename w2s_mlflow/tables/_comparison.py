"""Comparisons of two models, paired by seed: tests over seeds and test groups, and over seeds alone."""

from __future__ import annotations

from typing import Any

import pandas as pd

from w2s_mlflow import stats
from w2s_mlflow.tables import pgr

VALUES = ["score", "right", "groups", "checkpoints"]


def accuracies(rows: pd.DataFrame, role: str = "") -> pd.DataFrame:
    """Return accuracy (`score`) and correctness (`right`) of the models with a role, and the groups of the test rows, by seed.

    Args:
        rows: runs with different seeds.
        role: `weak` for their supervisors, `ceiling` for their ceilings; empty for the students themselves.
    """
    prefix = f"{role}_" if role else ""
    return _by_seed(rows, rows[f"{prefix}accuracy"], rows[f"{prefix}correct"])


def agreements(rows: pd.DataFrame) -> pd.DataFrame:
    """Return each run's agreement with its supervisor (`score`) and the rows on which they agree (`right`), by seed."""
    right = [
        None if weak is None or own is None else weak == own
        for weak, own in zip(rows["weak_answer"], rows["answer"], strict=True)
    ]
    return _by_seed(rows, rows["agreement"], pd.Series(right, index=rows.index, dtype=object))


def repeated(model: pd.DataFrame, seeds: pd.Index) -> pd.DataFrame:
    """Return a model without seeds (one row) as if each seed had made it."""
    return pd.DataFrame([model.iloc[0]] * len(seeds), index=seeds, columns=VALUES)


def minus(first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    """Return the differences of two models' scores and correctness, by the seeds that both have."""
    seeds = first.index.intersection(second.index)
    first, second = first.loc[seeds], second.loc[seeds]
    right = [
        None if one is None or other is None else one.astype(float) - other
        for one, other in zip(first["right"], second["right"], strict=True)
    ]
    scores = first["score"] - second["score"]
    return first.assign(score=scores, right=pd.Series(right, index=seeds, dtype=object))


def _by_seed(rows: pd.DataFrame, score: pd.Series, right: pd.Series) -> pd.DataFrame:
    columns = {"score": score.to_numpy(), "right": right.to_numpy()}
    columns |= {name: rows[name].to_numpy() for name in ("groups", "checkpoints")}
    return pd.DataFrame(columns, index=pd.Index(rows["seed"], name="seed")).sort_index()


def difference(before: pd.DataFrame, after: pd.DataFrame) -> dict[str, Any] | None:
    """Return the test of the scores of `after` minus those of `before`, or None if they share fewer than two seeds.

    The difference, its interval, `t` and `p` are two-way clustered over seeds and test groups. If the answers to the test rows
    are unknown, they are over seeds alone and equal those of `p_seeds`. Seeds that share all pretrained checkpoints are one
    cluster.
    """
    both = before.merge(after, left_index=True, right_index=True, suffixes=("_before", "_after"))
    both = both.dropna(subset=["score_before", "score_after"])
    if len(both) < 2:
        return None
    units = _units(both["checkpoints_before"], both["checkpoints_after"])
    row = over_units(both["score_before"], both["score_after"], units)
    if both[["right_before", "right_after"]].isna().any(axis=None):
        return row
    right_before, right_after = (list(both[name]) for name in ("right_before", "right_after"))
    return row | stats.two_way_test(right_before, right_after, both["groups_after"].iloc[0], units=units)._asdict()


def pgr_difference(before: pd.DataFrame, after: pd.DataFrame) -> dict[str, Any] | None:
    """Return the test of the PGR of the students `after` minus that of `before`, or None if they share fewer than two seeds.

    The difference is that of the PGRs of mean accuracies. If the answers to the test rows are unknown, it is the mean
    difference of the seeds' PGRs.
    """
    by_seed = [pgr.by_seed(rows).to_numpy() for rows in (before, after)]
    first, second = (
        rows.assign(pgr=values).dropna(subset=["pgr"]).set_index("seed").sort_index()
        for rows, values in zip((before, after), by_seed, strict=True)
    )
    seeds = first.index.intersection(second.index)
    if len(seeds) < 2:
        return None
    first, second = first.loc[seeds], second.loc[seeds]
    units = _units(first["checkpoints"], second["checkpoints"])
    row = over_units(first["pgr"], second["pgr"], units)
    if first["correct"].isna().any() or second["correct"].isna().any():
        return row
    baseline, method = (
        stats.Trio(*(list(rows[name]) for name in ("weak_correct", "correct", "ceiling_correct"))) for rows in (first, second)
    )
    return row | stats.pgr_difference(baseline, method, first["groups"].iloc[0], units=units)._asdict()


def _units(before: pd.Series, after: pd.Series) -> stats.Units:
    """Return the checkpoints that each pair of runs started from, which are the units of its seed."""
    return list(zip(before, after, strict=True))


def over_units(before: pd.Series, after: pd.Series, units: stats.Units = None) -> dict[str, Any]:
    """Return the paired t-test and the Wilcoxon test of matched values. `p` and `p_seeds` are both that of the t-test.

    `sd` is the standard deviation of the differences, and `pretrainings` the number of different units. The Wilcoxon test
    ranks the values themselves, whatever their units.
    """
    test = stats.paired_t_test(before, after, units=units)._asdict()
    alone = {"sd": float((after - before).std()), "rows_variance": 0.0, "groups": 0, "pretrainings": len(set(units or ()))}
    return test | {"p_seeds": test["p"], "p_wilcoxon": stats.wilcoxon_p(before, after)} | alone
