"""Temperature scaling: a case by hand, recovery of a known temperature, and the ends of its range."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax

from w2s_mlflow import metrics
from w2s_mlflow.records import SoftLabels


def test_by_hand_nine_to_one_that_is_right_three_times_in_four_is_too_sure_by_two() -> None:
    """sigmoid(log 9 / T) = 3/4 at T = log 9 / log 3 = 2."""
    probabilities = np.array([[0.9, 0.1]] * 4)
    assert metrics.temperature(probabilities, [0, 0, 0, 1]) == pytest.approx(2, rel=1e-3)
    labels = SoftLabels(("a",), ("g",), np.array([[0.9, 0.1]], dtype=np.float32))
    assert labels.at_temperature(2).probabilities_NC == pytest.approx(np.array([[0.75, 0.25]]))


@pytest.mark.parametrize("true", [0.4, 1.0, 3.0])
def test_the_temperature_that_labels_were_drawn_at_is_found(true: float) -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(40000, 3)) * 2
    gold = (softmax(logits, axis=1).cumsum(axis=1) > rng.random((40000, 1))).argmax(axis=1)
    assert metrics.temperature(softmax(logits * true, axis=1), gold) == pytest.approx(true, rel=0.05)


def test_rows_that_are_all_right_or_all_wrong_end_at_the_bounds() -> None:
    sure = np.array([[0.8, 0.2]] * 5)
    assert metrics.temperature(sure, [0] * 5) == pytest.approx(metrics.COLDEST, rel=1e-3)
    assert metrics.temperature(sure, [1] * 5) == pytest.approx(metrics.HOTTEST, rel=1e-3)


def test_a_probability_of_zero_is_no_error() -> None:
    found = metrics.temperature([[1.0, 0.0], [1.0, 0.0], [0.6, 0.4]], [0, 1, 0])
    assert metrics.COLDEST <= found <= metrics.HOTTEST


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20), st.floats(0.05, 20))
def test_scaled_labels_are_probabilities_in_the_same_order(first: list[float], temperature: float) -> None:
    table = np.array([[p, 1 - p] for p in first], dtype=np.float32)
    labels = SoftLabels(*2 * (tuple(map(str, range(len(first)))),), table)
    scaled = labels.at_temperature(temperature).probabilities_NC
    assert scaled.dtype == np.float32 and scaled.sum(axis=1) == pytest.approx(np.ones(len(first)), abs=1e-6)
    assert (np.sign(scaled[:, 0] - scaled[:, 1]) * np.sign(table[:, 0] - table[:, 1]) >= 0).all()
    assert labels.at_temperature(1.0).probabilities_NC == pytest.approx(table, abs=1e-6)
