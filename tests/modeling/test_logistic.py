"""Penalised linear classifiers: agreement with scikit-learn, rounds on own targets, standardisation and the chosen penalty."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from w2s_mlflow.exceptions import DivergedError
from w2s_mlflow.losses import confidence, cross_entropy
from w2s_mlflow.modeling import logistic


def data(rows: int = 80, features: int = 5, classes: int = 2, seed: int = 0) -> tuple[Any, Any]:
    random = np.random.default_rng(seed)
    features_ND = random.normal(size=(rows, features)).astype(np.float32)
    scores_NC = features_ND @ random.normal(size=(features, classes)) + random.gumbel(size=(rows, classes))
    return features_ND, scores_NC.argmax(axis=1)


def one_hot(labels_N: Any, classes: int) -> Any:
    return np.eye(classes, dtype=np.float32)[labels_N]


@pytest.mark.parametrize(("classes", "intercept"), [(2, True), (2, False), (3, True)])
def test_it_is_scikit_learns_regression(classes: int, intercept: bool) -> None:
    features_ND, labels_N = data(classes=classes)
    found = logistic.fit(features_ND, one_hot(labels_N, classes), 0.1, intercept=intercept)
    theirs = LogisticRegression(C=1 / (len(labels_N) * 0.1), tol=1e-8, max_iter=1000, fit_intercept=intercept)
    theirs.fit(features_ND, labels_N)
    np.testing.assert_allclose(found.probabilities(features_ND), theirs.predict_proba(features_ND), atol=5e-4)
    np.testing.assert_allclose(found.weight_KD.numpy(), theirs.coef_, atol=1e-3)


def test_soft_labels_are_matched_by_the_bias_alone_without_features() -> None:
    """Worked by hand: with features that are 0, the mean label 0.7 has the bias log(0.7 / 0.3)."""
    labels_NC = np.array([[0.2, 0.8], [0.4, 0.6]], dtype=np.float32)
    found = logistic.fit(np.zeros((2, 3), np.float32), labels_NC, 1.0)
    assert found.bias_K.item() == pytest.approx(np.log(0.7 / 0.3), abs=1e-4) and not found.weight_KD.any()


def test_the_penalty_bounds_the_weights_of_separable_data() -> None:
    """At the minimum l2 w = mean of (y - p) x, and here x = 1 or -1, so |w| < 1 / l2."""
    features_ND, labels_NC = np.array([[-1.0], [1.0]], np.float32), one_hot(np.array([0, 1]), 2)
    weight = logistic.fit(features_ND, labels_NC, 0.5).weight_KD.item()
    assert weight == pytest.approx((1 - 1 / (1 + np.exp(-weight))) / 0.5, abs=1e-4)


def test_a_linear_layer_has_the_same_logits() -> None:
    features_ND, labels_N = data()
    found = logistic.fit(features_ND, one_hot(labels_N, 2), 0.1)
    weight_CD, bias_C = found.by_class()
    features = torch.from_numpy(features_ND)
    torch.testing.assert_close(features @ weight_CD.T + bias_C, found.logits(features))


def test_features_that_are_not_finite_diverge() -> None:
    with pytest.raises(DivergedError, match="not finite"):
        logistic.fit(np.full((4, 2), np.nan, np.float32), one_hot(np.array([0, 1, 0, 1]), 2), 0.1)


def test_adamw_comes_near_the_minimum() -> None:
    features_ND, labels_N = data()
    labels_NC = one_hot(labels_N, 2)

    def loss(logits_NC: Tensor, labels_NC: Tensor, progress: float) -> Tensor:
        return cross_entropy.loss(logits_NC, labels_NC, progress, cross_entropy.Options())

    found = logistic.descend(features_ND, labels_NC, 0.3, loss, 1e-2)
    np.testing.assert_allclose(
        found.probabilities(features_ND), logistic.fit(features_ND, labels_NC, 0.3).probabilities(features_ND), atol=0.01
    )


# --- rounds -----------------------------------------------------------------------------------------------------------


def test_rounds_end_at_their_own_targets() -> None:
    """With a = 1/2, the last fit is to the mean of labels and hardened answers, of which as many are 1 as the labels sum to."""
    features_ND, labels_N = data()
    labels_NC = np.asarray(0.7 * one_hot(labels_N, 2) + 0.15, np.float32)

    def targets(logits_NC: Tensor, labels_NC: Tensor, progress: float) -> Tensor:
        return (labels_NC + confidence.hardened(logits_NC, labels_NC)) / 2

    found = logistic.fit_own_targets(features_ND, labels_NC, 0.1, targets)
    chosen_NC = targets(found.logits(torch.from_numpy(features_ND)), torch.from_numpy(labels_NC), 1.0)
    np.testing.assert_allclose(
        found.probabilities(features_ND),
        logistic.fit(features_ND, chosen_NC.numpy(), 0.1).probabilities(features_ND),
        atol=1e-3,
    )


def test_each_round_has_its_progress() -> None:
    seen = []

    def targets(logits_NC: Tensor, labels_NC: Tensor, progress: float) -> Tensor:
        seen.append(progress)
        return labels_NC

    features_ND, labels_N = data(20)
    logistic.fit_own_targets(features_ND, one_hot(labels_N, 2), 0.1, targets)
    assert seen == [k / logistic.ROUNDS for k in range(1, logistic.ROUNDS + 1)]


# --- standardisation and penalty --------------------------------------------------------------------------------------


def test_features_are_standardised_and_constant_ones_become_zero(caplog: pytest.LogCaptureFixture) -> None:
    features_ND = np.array([[1.0, 5.0], [3.0, 5.0]], np.float32)
    with caplog.at_level(logging.INFO, "w2s_mlflow"):
        standardised_ND = logistic.Standardisation.of(features_ND)(features_ND)
    scale = 1 + 1e-3 * features_ND.std()
    np.testing.assert_allclose(standardised_ND, [[-1 / scale, 0], [1 / scale, 0]], rtol=1e-5)
    assert "1 of 2 features do not vary" in caplog.text


def test_noise_gets_a_strong_penalty_and_signal_keeps_its_groups_together() -> None:
    random = np.random.default_rng(0)
    features_ND, labels_N = data(160)
    groups = [str(row // 2) for row in range(160)]
    assert logistic.choose_l2(features_ND, labels_N, groups, 2, random) in logistic.GRID
    # Rows of one group are copies with the same random label: folds that split a group would choose a weak penalty.
    copied_ND = np.repeat(random.normal(size=(80, 60)), 2, axis=0).astype(np.float32)
    copied_N = np.repeat(random.integers(0, 2, 80), 2)
    assert logistic.choose_l2(copied_ND, copied_N, [str(row) for row in range(160)], 2, np.random.default_rng(1)) < 0.1
