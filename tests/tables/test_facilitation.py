"""The table of facilitation by hand: means, the paired test over seeds, and what is kept apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from w2s_mlflow import tables
from w2s_mlflow.figures import facilitation as figure
from w2s_mlflow.tables import facilitation


def frame(accuracies: Sequence[tuple[float, float, float]], **more: Any) -> pd.DataFrame:
    """One row per seed, of M_W, M_S and M'_W."""
    rows = []
    for seed, (weak, strong, facilitated) in enumerate(accuracies):
        row: dict[str, Any] = dict.fromkeys((*tables.FACILITATIONS, "method_options", "other_options"), "") | {
            "seed": str(seed),
            "iteration": 1,
        }
        row |= {"weak_accuracy": weak, "strong_accuracy": strong, "accuracy": facilitated, "method": "baseline"}
        rows.append(row | {"agreement": 0.8, "weak_agreement": 0.9, "train_size": 100, "test_size": 60} | more)
    return pd.DataFrame(rows)


THREE = [(0.60, 0.70, 0.64), (0.62, 0.72, 0.63), (0.64, 0.74, 0.71)]


def test_a_row_has_means_intervals_and_the_test_paired_by_seed() -> None:
    (row,) = facilitation.table(frame(THREE)).to_dict("records")
    assert [row[name] for name in ("weak_accuracy", "strong_accuracy", "accuracy", "gain")] == pytest.approx(
        [0.62, 0.72, 0.66, 0.04]
    )
    # gains .04, .01, .07: deviation .03, so that t = .04 / (.03 / sqrt 3), and half the interval is 4.3027 * .03 / sqrt 3
    assert (row["gain_low"], row["gain_high"]) == pytest.approx((0.04 - 0.07452, 0.04 + 0.07452), abs=1e-5)
    assert row["p"] == pytest.approx(2 * stats.t.sf(0.04 / (0.03 / 3**0.5), 2)) and row["n"] == 3


def test_turns_settings_and_teachers_with_gold_are_rows_of_their_own() -> None:
    parts = [
        frame(THREE),
        frame(THREE, iteration=2),
        frame(THREE, other_options="temperature=3.0"),
        frame(THREE, gold="transfer"),
    ]
    found = facilitation.table(pd.concat(parts))
    assert sorted(zip(found["iteration"], found["other_options"], found["gold"], strict=True)) == [
        (1, "", ""),
        (1, "", "transfer"),
        (1, "temperature=3.0", ""),
        (2, "", ""),
    ]
    assert found["n"].tolist() == [3] * 4 and found["p_holm"].tolist() == pytest.approx((4 * found["p"]).tolist())


def test_one_seed_has_no_test() -> None:
    (row,) = facilitation.table(frame(THREE[:1])).to_dict("records")
    assert row["gain"] == pytest.approx(0.04) and pd.isna(row["p"]) and pd.isna(row["gain_low"]) and pd.isna(row["p_holm"])


def test_the_figure_starts_at_the_supervisor_and_puts_the_teacher_between_turns() -> None:
    (axes,) = figure.figure(pd.concat([frame(THREE), frame(THREE, iteration=2)])).axes
    drawn = {
        line.get_marker(): np.asarray(line.get_xydata()).round(6).tolist()
        for line in axes.lines
        if line.get_marker() in ("o", "s") and len(np.asarray(line.get_xdata())) > 1
    }
    assert drawn == {"o": [[0, 0.62], [1, 0.66], [2, 0.66]], "s": [[0.5, 0.72], [1.5, 0.72]]}
