"""Gain and misfit: by hand, and the two theorems where their premises hold."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize

from w2s_mlflow import stats
from w2s_mlflow.tables import misfit


def run(seed: int, student_NC: Any, weak_NC: Any, gold_N: Any, labels: str = "weak") -> dict[str, Any]:
    names = {"task": "t", "weak": "w", "strong": "s", "head": "reward", "method": "baseline"}
    names |= {"method_options": "", "other_options": "", "settings": json.dumps({"labels": labels})}
    probabilities = {"probabilities": student_NC, "weak_probabilities": weak_NC, "gold": gold_N}
    return names | probabilities | {"seed": str(seed), "train_size": 10, "test_size": 2, "checkpoints": ""}


GOLD = np.array([0, 1])
STUDENT = np.array([[0.9, 0.1], [0.5, 0.5]], dtype=np.float32)
WEAK = np.array([[0.6, 0.4], [0.8, 0.2]], dtype=np.float32)


def test_gain_and_misfit_of_two_rows_by_hand() -> None:
    # Squared errors of P(gold): supervisor .16 and .64, student .01 and .25; between the two .09 and .09.
    assert misfit.gain_and_misfit("squared_error", STUDENT, WEAK, GOLD) == pytest.approx((0.4 - 0.13, 0.09))
    gain, divergence = misfit.gain_and_misfit("cross_entropy", STUDENT, WEAK, GOLD)
    assert gain == pytest.approx((math.log(0.9 / 0.6) + math.log(0.5 / 0.2)) / 2)
    kl = (0.9 * math.log(0.9 / 0.6) + 0.1 * math.log(0.1 / 0.4), 0.5 * math.log(0.5 / 0.8) + 0.5 * math.log(0.5 / 0.2))
    assert divergence == pytest.approx(sum(kl) / 2)
    # The supervisor errs in the second row only; the student's tie goes to class 0, which is the supervisor's answer.
    assert misfit.gain_and_misfit("error", STUDENT, WEAK, GOLD) == (0, 0)


def test_the_table_has_a_row_per_measure_with_intervals_over_seeds() -> None:
    frame = pd.DataFrame([run(0, STUDENT, WEAK, GOLD), run(1, WEAK, WEAK, GOLD), run(2, WEAK, WEAK, GOLD, labels="random")])
    found = misfit.table(frame).set_index("measure")
    assert list(found.index) == ["squared_error", "cross_entropy", "error"] and set(found["n"]) == {2}
    row = found.loc["squared_error"]
    interval = stats.seed_interval([0.27 - 0.09, 0.0])
    assert (row["difference"], row["difference_low"], row["difference_high"]) == pytest.approx(interval[:3])
    assert row["difference"] == pytest.approx(row["gain"] - row["misfit"])


def test_a_student_without_a_supervisor_on_its_rows_is_left_out() -> None:
    assert misfit.table(pd.DataFrame([run(0, STUDENT, None, GOLD)])).empty


@given(seed=st.integers(0, 10**6))
def test_gain_is_at_least_misfit_where_the_theorems_hold(seed: int) -> None:
    """A convex set of models that contains the truth, and a student that minimises the misfit over this set."""
    random = np.random.default_rng(seed)
    gold_N = random.integers(0, 2, size=12)
    truth_NC = np.eye(2)[gold_N] * 0.98 + 0.01
    other_NC, weak_NC = (random.dirichlet([1.0, 1.0], size=12) * 0.98 + 0.01 for _ in range(2))
    for measure in ("squared_error", "cross_entropy"):
        distance = misfit.MEASURES[measure]

        def misfit_of(share: float, distance: Any = distance) -> float:
            return float(distance(share * truth_NC + (1 - share) * other_NC, weak_NC))

        share = optimize.minimize_scalar(misfit_of, bounds=(0, 1), method="bounded", options={"xatol": 1e-9}).x
        student_NC = share * truth_NC + (1 - share) * other_NC
        gain = distance(truth_NC, weak_NC) - distance(truth_NC, student_NC)
        assert gain >= distance(student_NC, weak_NC) - 1e-6
