"""Metrics of predictions. Each is a numpy function (probabilities_NC, gold_N) -> float, named in scikit-learn's style.

Higher is better for `*_score`, lower for `*_loss` and `*_error`. Undefined values are NaN.

To add a classification metric, write a function here and register it with `@metric`. Runs are then scored with it, and it is a
column of the analysis frames and of the tables `runs` and `calibration`; no other list of metrics needs to be changed. Metrics
are computed from stored predictions and are therefore not part of any fingerprint. `analyze` computes a new metric for older
runs as well.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

Function = Callable[[ArrayLike, ArrayLike], float]
"""Function from probabilities_NC and gold_N to the value of the metric, which is NaN if undefined."""


@dataclass(frozen=True)
class Metric:
    """A classification metric that is reported for every split with gold labels.

    Attributes:
        direction: `maximize` if higher values are better, else `minimize`.
        description: what the metric measures, and its range.
    """

    function: Function
    direction: Literal["maximize", "minimize"]
    description: str


METRICS: dict[str, Metric] = {}
"""Registered metrics by name. In MLflow, the split is a prefix of the name, as in `test/accuracy`."""


def metric(name: str, *, direction: Literal["maximize", "minimize"], description: str) -> Callable[[Function], Function]:
    """Return a decorator that registers a function as the classification metric `name`; see `Metric`."""

    def register(function: Function) -> Function:
        METRICS[name] = Metric(function, direction, description)
        return function

    return register


COLDEST, HOTTEST = 0.05, 20.0
"""Bounds of a fitted temperature. The lower bound is needed if every prediction is correct: the optimum would then be 0."""

COLLAPSE = 0.99
"""Share of predictions of one class from which on a model counts as collapsed."""

BINS = 10
"""Number of confidence bins of the expected calibration error."""


@metric("accuracy", direction="maximize", description="share of correct answers, in [0, 1]")
def accuracy_score(probabilities_NC: ArrayLike, gold_N: ArrayLike) -> float:
    """Return the share of rows whose most probable class is the gold label. A tie goes to the lowest class index."""
    if not np.isfinite(probabilities_NC).all():  # a diverged model predicts NaN and has no most probable class
        return float("nan")
    return float(np.mean(np.argmax(probabilities_NC, axis=1) == np.asarray(gold_N)))


def agreement_score(probabilities_NC: ArrayLike, others_NC: ArrayLike) -> float:
    """Return the share of rows whose most probable class is the same in both tables. The tables have the same order of rows."""
    return float(np.mean(np.argmax(probabilities_NC, axis=1) == np.argmax(others_NC, axis=1)))


@metric("auroc", direction="maximize", description="area under the ROC curve of class 1, in [0, 1]; two classes only")
def roc_auc_score(probabilities_NC: ArrayLike, gold_N: ArrayLike) -> float:
    """Return the area under the ROC curve of P(class 1), computed as the Mann-Whitney statistic, in which ties count half.

    It is NaN if there are more than two classes, or if all rows have the same gold label.
    """
    from scipy.stats import rankdata

    probabilities, gold = np.asarray(probabilities_NC), np.asarray(gold_N)
    positives = int((gold == 1).sum())
    negatives = len(gold) - positives
    if probabilities.shape[1] != 2 or not positives or not negatives:
        return float("nan")
    ranks = rankdata(probabilities[:, 1])
    return float((ranks[gold == 1].sum() - positives * (positives + 1) / 2) / (positives * negatives))


@metric("brier", direction="minimize", description="Brier score, the halved squared error of the probabilities, in [0, 1]")
def brier_score_loss(probabilities_NC: ArrayLike, gold_N: ArrayLike) -> float:
    """Return half the squared error, summed over classes and averaged over rows.

    For two classes, this is the usual Brier score.
    """
    probabilities, gold = np.asarray(probabilities_NC, dtype=np.float64), np.asarray(gold_N)
    truth = np.eye(probabilities.shape[1])[gold]
    return float(((probabilities - truth) ** 2).sum(axis=1).mean() / 2)


@metric("ece", direction="minimize", description="expected calibration error over ten equal bins of confidence, in [0, 1]")
def expected_calibration_error(probabilities_NC: ArrayLike, gold_N: ArrayLike) -> float:
    """Return the mean |confidence - accuracy| of ten equal-width confidence bins, weighted by row count (Guo et al. 2017)."""
    probabilities, gold = np.asarray(probabilities_NC, dtype=np.float64), np.asarray(gold_N)
    if not np.isfinite(probabilities).all():
        return float("nan")
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == gold
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)  # a confidence of 1 belongs to the last bin
    gaps = np.bincount(bins, weights=confidence - correct, minlength=BINS)
    return float(np.abs(gaps).sum() / len(gold))


def collapsed(probabilities_NC: ArrayLike) -> bool:
    """Return whether a model has collapsed: nearly all of its predictions are the same class, or one is not finite.

    The rule needs no gold labels. It is applied to the predictions on `validation`.
    """
    probabilities = np.asarray(probabilities_NC)
    if not np.isfinite(probabilities).all():
        return True
    counts = np.bincount(probabilities.argmax(axis=1))
    return bool(counts.max(initial=0) >= COLLAPSE * len(probabilities))


def report(probabilities_NC: ArrayLike, gold_N: ArrayLike) -> dict[str, float]:
    """Return the values of all registered metrics that are defined for these predictions."""
    values = {name: registered.function(probabilities_NC, gold_N) for name, registered in METRICS.items()}
    return {name: value for name, value in values.items() if np.isfinite(value)}


def temperature(probabilities_NC: ArrayLike, gold_N: ArrayLike) -> float:
    """Return the temperature T that minimises the cross-entropy of softmax(log p / T) with the gold labels.

    T > 1 means that the probabilities p are overconfident.
    """
    from scipy import optimize

    log_p_NC = np.log(np.maximum(np.asarray(probabilities_NC, dtype=np.float64), np.finfo(np.float32).tiny))
    gold_N = np.asarray(gold_N)

    def cross_entropy(log_t: float) -> float:
        scaled_NC = log_p_NC / math.exp(log_t)
        scaled_NC -= np.logaddexp.reduce(scaled_NC, axis=1, keepdims=True)
        return -float(scaled_NC[np.arange(len(gold_N)), gold_N].mean())

    result = optimize.minimize_scalar(cross_entropy, bounds=(math.log(COLDEST), math.log(HOTTEST)), method="bounded")
    return float(math.exp(result.x))
