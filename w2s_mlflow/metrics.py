"""Metrics of predictions: pure numpy, (probabilities_NC, gold_N) -> float, named in scikit-learn's style.

Higher is better for `*_score`, lower for `*_loss` and `*_error`. Undefined values are NaN.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize
from scipy.stats import rankdata

COLDEST, HOTTEST = 0.05, 20.0
"""Search range of the temperature; without bounds, the optimum would be 0 if every prediction is correct."""

BINS = 10


def accuracy_score(probabilities_NC: ArrayLike, gold_N: ArrayLike) -> float:
    """Return the share of rows whose most probable class is the gold one; ties go to the lower class index."""
    if not np.isfinite(probabilities_NC).all():  # a diverged model has no most probable class
        return float("nan")
    return float(np.mean(np.argmax(probabilities_NC, axis=1) == np.asarray(gold_N)))


def agreement_score(probabilities_NC: ArrayLike, others_NC: ArrayLike) -> float:
    """Return the share of rows for which two tables, in the same row order, have the same most probable class."""
    return float(np.mean(np.argmax(probabilities_NC, axis=1) == np.argmax(others_NC, axis=1)))


def roc_auc_score(probabilities_NC: ArrayLike, gold_N: ArrayLike) -> float:
    """Return the area under the ROC curve of P(class 1), ties counted half (Mann-Whitney); NaN for C > 2 or one class only."""
    probabilities, gold = np.asarray(probabilities_NC), np.asarray(gold_N)
    positives = int((gold == 1).sum())
    negatives = len(gold) - positives
    if probabilities.shape[1] != 2 or not positives or not negatives:
        return float("nan")
    ranks = rankdata(probabilities[:, 1])
    return float((ranks[gold == 1].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def brier_score_loss(probabilities_NC: ArrayLike, gold_N: ArrayLike) -> float:
    """Return the mean squared error of the probabilities, summed over classes and halved: the usual Brier score for C = 2."""
    probabilities, gold = np.asarray(probabilities_NC, dtype=np.float64), np.asarray(gold_N)
    truth = np.eye(probabilities.shape[1])[gold]
    return float(((probabilities - truth) ** 2).sum(axis=1).mean() / 2)


def expected_calibration_error(probabilities_NC: ArrayLike, gold_N: ArrayLike) -> float:
    """Return |confidence - accuracy| averaged over ten equal-width confidence bins, weighted by rows (Guo et al. 2017)."""
    probabilities, gold = np.asarray(probabilities_NC, dtype=np.float64), np.asarray(gold_N)
    if not np.isfinite(probabilities).all():
        return float("nan")
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == gold
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)  # a confidence of 1 belongs to the last bin
    gaps = np.bincount(bins, weights=confidence - correct, minlength=BINS)
    return float(np.abs(gaps).sum() / len(gold))


REPORTED: dict[str, Callable[[ArrayLike, ArrayLike], float]] = {
    "accuracy": accuracy_score,
    "auroc": roc_auc_score,
    "brier": brier_score_loss,
    "ece": expected_calibration_error,
}
"""Metrics reported for every split with gold labels, by their name in MLflow."""


def report(probabilities_NC: ArrayLike, gold_N: ArrayLike) -> dict[str, float]:
    """Return every metric of `REPORTED` that is defined for these predictions."""
    result = {name: metric(probabilities_NC, gold_N) for name, metric in REPORTED.items()}
    return {name: value for name, value in result.items() if np.isfinite(value)}


def temperature(probabilities_NC: ArrayLike, gold_N: ArrayLike) -> float:
    """Return the T that minimises the cross-entropy of softmax(log p / T) with the gold labels; T > 1: p is overconfident."""
    log_p_NC = np.log(np.maximum(np.asarray(probabilities_NC, dtype=np.float64), np.finfo(np.float32).tiny))
    gold_N = np.asarray(gold_N)

    def cross_entropy(log_t: float) -> float:
        scaled_NC = log_p_NC / math.exp(log_t)
        scaled_NC -= np.logaddexp.reduce(scaled_NC, axis=1, keepdims=True)
        return -float(scaled_NC[np.arange(len(gold_N)), gold_N].mean())

    result = optimize.minimize_scalar(cross_entropy, bounds=(math.log(COLDEST), math.log(HOTTEST)), method="bounded")
    return float(math.exp(result.x))
