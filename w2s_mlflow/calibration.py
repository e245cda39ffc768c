"""Temperature scaling (Guo et al. 2017, section 4.2): probabilities made as sure as they are right, pure numpy and scipy."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize

COLDEST, HOTTEST = 0.05, 20.0
"""Temperatures are looked for between these: on rows that are all right, the likeliest would be 0."""


def temperature(probabilities_NC: ArrayLike, gold_N: ArrayLike) -> float:
    """The T at which softmax(log p / T) has the least cross-entropy with the gold classes; above 1, p is too sure."""
    log_p_NC = np.log(np.maximum(np.asarray(probabilities_NC, dtype=np.float64), np.finfo(np.float32).tiny))
    gold_N = np.asarray(gold_N)

    def cross_entropy(log_t: float) -> float:
        scaled_NC = log_p_NC / math.exp(log_t)
        scaled_NC -= np.logaddexp.reduce(scaled_NC, axis=1, keepdims=True)
        return -float(scaled_NC[np.arange(len(gold_N)), gold_N].mean())

    found = optimize.minimize_scalar(cross_entropy, bounds=(math.log(COLDEST), math.log(HOTTEST)), method="bounded")
    return float(math.exp(found.x))
