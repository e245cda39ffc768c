"""Gold equivalent: where the gold curve reaches a student's accuracy, by hand."""

from __future__ import annotations

import json
import math
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from w2s_mlflow import stats
from w2s_mlflow.tables import gold_equivalent


@pytest.mark.parametrize(
    ("accuracy", "rows"),
    [(0.6, 0), (0.7, 10), (0.75, 10 * math.sqrt(10)), (0.8, 100), (0.85, 100 * math.sqrt(10)), (0.9, 1000), (0.91, math.inf)],
)
def test_between_two_points_the_logarithm_of_the_rows_is_interpolated(accuracy: float, rows: float) -> None:
    assert gold_equivalent.crossing([10, 100, 1000], [0.7, 0.8, 0.9], accuracy) == pytest.approx(rows)


def test_where_the_curve_falls_its_running_maximum_counts() -> None:
    assert gold_equivalent.crossing([10, 100, 1000], [0.7, 0.6, 0.9], 0.7) == pytest.approx(10)
    assert gold_equivalent.crossing([10, 100, 1000], [0.7, 0.6, 0.9], 0.8) == pytest.approx(100 * math.sqrt(10))
    assert math.isnan(gold_equivalent.crossing([10, 100], [0.7, 0.8], math.nan))


@given(st.lists(st.floats(0, 1), min_size=2, max_size=6), st.floats(0, 1), st.floats(0, 1))
def test_a_more_accurate_student_is_worth_no_fewer_labels(curve: list[float], one: float, other: float) -> None:
    rows = [10.0 * 2**n for n in range(len(curve))]
    low, high = (gold_equivalent.crossing(rows, curve, accuracy) for accuracy in sorted((one, other)))
    assert low <= high * (1 + 1e-9)


def run(method: str, seed: int, accuracy: float, **settings: Any) -> dict[str, Any]:
    names = {"task": "t", "weak": "w", "strong": "s", "head": "reward", "method": method, "method_options": ""}
    own = {"seed": str(seed), "accuracy": accuracy, "settings": json.dumps({"labels": "weak", "learning_rate": "1"} | settings)}
    return names | own | {"other_options": "", "train_size": 10, "test_size": 20, "checkpoints": ""}


def test_the_table_takes_the_mean_curve_and_the_students_interval() -> None:
    curve = [
        run("gold_subset", seed, accuracy, labels="gold_subset", gold_rows=str(rows))
        for rows, accuracies in ((100, (0.79, 0.81)), (10, (0.69, 0.71)))
        for seed, accuracy in enumerate(accuracies)
    ]
    students = [run("baseline", seed, accuracy) for seed, accuracy in enumerate((0.745, 0.755))]
    other_rate = [run("confidence", seed, 0.75, learning_rate="2") for seed in range(2)]
    (row,) = gold_equivalent.table(pd.DataFrame([*curve, *students, *other_rate])).to_dict("records")
    assert (row["method"], row["n"], row["smallest"], row["largest"]) == ("baseline", 2, 10, 100)
    assert row["gold_rows"] == pytest.approx(10 * math.sqrt(10))
    interval = stats.seed_interval([0.745, 0.755])
    bounds = [gold_equivalent.crossing([10, 100], [0.7, 0.8], bound) for bound in (interval.low, interval.high)]
    assert [row["gold_rows_low"], row["gold_rows_high"]] == pytest.approx(bounds)
    assert gold_equivalent.table(pd.DataFrame([*curve[:2], *students])).empty
