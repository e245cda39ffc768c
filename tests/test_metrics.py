"""Metrics against hand-worked values, scikit-learn and an independent statement; properties over all that are reported."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import softmax
from sklearn import metrics as sklearn_metrics

from w2s_mlflow import metrics
from w2s_mlflow.records import SoftLabels

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

P1 = np.array([0.1, 0.6, 0.5, 0.5, 0.7])
EXAMPLE, GOLD = np.stack([1 - P1, P1], axis=1), np.array([0, 1, 1, 0, 1])

each_metric = pytest.mark.parametrize("name", metrics.METRICS)
each_seed = pytest.mark.parametrize("seed", range(5))


def table(rows: int, classes: int, seed: int, decimals: int = 12) -> tuple[Floats, Ints]:
    """Random probabilities and gold; few decimals make ties."""
    rng = np.random.default_rng(seed)
    found_NC = rng.dirichlet(np.ones(classes), size=rows)
    found_NC[:, :-1] = found_NC[:, :-1].round(decimals)
    found_NC[:, -1] = 1 - found_NC[:, :-1].sum(axis=1)
    return found_NC.clip(0, 1), rng.integers(classes, size=rows)


@pytest.mark.parametrize(("name", "expected"), [("accuracy", 0.8), ("auroc", 5.5 / 6), ("brier", 0.152), ("ece", 0.16)])
def test_by_hand(name: str, expected: float) -> None:
    assert metrics.METRICS[name].function(EXAMPLE, GOLD) == pytest.approx(expected)


def test_a_tie_goes_to_the_lower_class() -> None:
    assert metrics.accuracy_score([[0.5, 0.5]], [0]) == 1
    assert metrics.accuracy_score([[0.2, 0.4, 0.4]], [2]) == 0


@each_seed
@pytest.mark.parametrize("decimals", [1, 12])
def test_binary_metrics_agree_with_scikit_learn(seed: int, decimals: int) -> None:
    found_NC, gold_N = table(60, 2, seed, decimals)
    assert metrics.accuracy_score(found_NC, gold_N) == sklearn_metrics.accuracy_score(gold_N, found_NC.argmax(axis=1))
    assert metrics.roc_auc_score(found_NC, gold_N) == pytest.approx(sklearn_metrics.roc_auc_score(gold_N, found_NC[:, 1]))
    assert metrics.brier_score_loss(found_NC, gold_N) == pytest.approx(sklearn_metrics.brier_score_loss(gold_N, found_NC[:, 1]))


@each_seed
def test_multi_class_brier_agrees_with_scikit_learn(seed: int) -> None:
    found_NC, gold_N = table(60, 5, seed)
    expected = sklearn_metrics.brier_score_loss(gold_N, found_NC, labels=range(5), scale_by_half=True)
    assert metrics.brier_score_loss(found_NC, gold_N) == pytest.approx(expected)


@each_seed
@pytest.mark.parametrize("classes", [2, 4])
def test_calibration_error_is_its_definition(seed: int, classes: int) -> None:
    found_NC, gold_N = table(80, classes, seed)
    bins: dict[int, list[tuple[float, bool]]] = {}
    for row, gold in zip(found_NC, gold_N, strict=True):
        inside = next(b for b in range(10) if max(row) < (b + 1) / 10 or b == 9)
        bins.setdefault(inside, []).append((max(row), list(row).index(max(row)) == gold))
    gaps = [len(rows) / 80 * abs(np.mean([c for c, _ in rows]) - np.mean([ok for _, ok in rows])) for rows in bins.values()]
    assert metrics.expected_calibration_error(found_NC, gold_N) == pytest.approx(sum(gaps))


def test_certainty_belongs_to_the_last_bin() -> None:
    # 1.0 wrong and .95 right share a bin: |1.95 - 1| / 2
    assert metrics.expected_calibration_error([[1.0, 0.0], [0.95, 0.05]], [1, 0]) == pytest.approx(0.475)


@each_metric
@each_seed
@pytest.mark.parametrize("classes", [2, 5])
def test_order_of_rows_does_not_matter(name: str, seed: int, classes: int) -> None:
    found_NC, gold_N = table(40, classes, seed, decimals=1)
    order = np.random.default_rng(seed + 100).permutation(40)
    metric = metrics.METRICS[name].function
    assert metric(found_NC[order], gold_N[order]) == pytest.approx(metric(found_NC, gold_N), nan_ok=True)


@each_metric
def test_lists_and_float32_are_taken(name: str) -> None:
    metric = metrics.METRICS[name].function
    expected = metric(EXAMPLE, GOLD)
    assert metric(EXAMPLE.tolist(), GOLD.tolist()) == expected
    assert metric(EXAMPLE.astype(np.float32), GOLD) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("name", "best"), [("accuracy", 1.0), ("auroc", 1.0), ("brier", 0.0), ("ece", 0.0)])
def test_a_certain_and_right_model(name: str, best: float) -> None:
    gold_N = np.array([0, 1, 1, 0])
    assert metrics.METRICS[name].function(np.eye(2)[gold_N], gold_N) == best


@pytest.mark.parametrize(("name", "worst"), [("accuracy", 0.0), ("auroc", 0.0), ("brier", 1.0), ("ece", 1.0)])
def test_a_certain_and_wrong_model(name: str, worst: float) -> None:
    gold_N = np.array([0, 1, 1, 0])
    assert metrics.METRICS[name].function(np.eye(2)[1 - gold_N], gold_N) == worst


@pytest.mark.parametrize("gold", [[0, 0, 0, 0, 0], [1, 1, 1, 1, 1]])
def test_auroc_of_one_class_is_undefined(gold: list[int]) -> None:
    assert math.isnan(metrics.roc_auc_score(EXAMPLE, gold))


def test_auroc_of_many_classes_is_undefined_and_not_reported() -> None:
    found_NC, gold_N = table(20, 3, 0)
    assert math.isnan(metrics.roc_auc_score(found_NC, gold_N))
    assert set(metrics.report(found_NC, gold_N)) == set(metrics.METRICS) - {"auroc"}


@each_metric
def test_a_model_that_diverged_has_no_score(name: str) -> None:
    assert math.isnan(metrics.METRICS[name].function(np.full((5, 2), np.nan), GOLD))


def test_report_has_every_metric() -> None:
    assert metrics.report(EXAMPLE, GOLD) == {name: metric.function(EXAMPLE, GOLD) for name, metric in metrics.METRICS.items()}


def test_a_metric_says_what_it_is_and_which_values_are_better() -> None:
    for name, metric in metrics.METRICS.items():
        assert name.isidentifier() and metric.description and not metric.description.endswith(".")
        assert metric.direction == ("maximize" if metric.function.__name__.endswith("_score") else "minimize")


def test_a_registered_metric_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "METRICS", dict(metrics.METRICS))
    metrics.metric("rows", direction="maximize", description="number of rows")(
        lambda probabilities_NC, gold_N: float(len(GOLD))
    )
    assert metrics.report(EXAMPLE, GOLD)["rows"] == 5 and list(metrics.METRICS)[-1] == "rows"


def test_agreement_counts_equal_choices() -> None:
    others_NC = np.array([[0.6, 0.4], [0.6, 0.4], [0.1, 0.9], [0.9, 0.1], [0.0, 1.0]])
    assert metrics.agreement_score(EXAMPLE, others_NC) == metrics.agreement_score(others_NC, EXAMPLE) == 0.6
    assert metrics.agreement_score(EXAMPLE, EXAMPLE) == 1


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


@pytest.mark.parametrize(("of_one_class", "collapsed"), [(98, False), (99, True), (100, True)])
def test_a_model_collapses_at_99_predictions_in_100_of_one_class(of_one_class: int, collapsed: bool) -> None:
    probabilities_NC = np.tile([0.4, 0.6], (100, 1))
    probabilities_NC[of_one_class:] = [0.6, 0.4]
    assert metrics.collapsed(probabilities_NC) == collapsed == metrics.collapsed(probabilities_NC[:, ::-1])


def test_predictions_that_are_not_finite_have_collapsed() -> None:
    probabilities_NC = np.tile([0.5, 0.5], (100, 1))
    probabilities_NC[:50] = [0.4, 0.6]
    assert not metrics.collapsed(probabilities_NC)
    probabilities_NC[0, 0] = np.nan
    assert metrics.collapsed(probabilities_NC)
