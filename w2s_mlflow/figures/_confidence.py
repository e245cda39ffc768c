"""Reliability diagram: confidence histogram, and accuracy by confidence (Guo et al. 2017, figure 1)."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

BINS = 10


def figure(probabilities_NC: ArrayLike, gold_N: ArrayLike) -> Figure:
    """Draw a histogram of the largest class probability of each row, and the accuracy of the rows in each bin."""
    probabilities = np.asarray(probabilities_NC, dtype=np.float64)
    confidence, correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == np.asarray(gold_N)
    edges = np.linspace(1 / probabilities.shape[1], 1, BINS + 1)
    bins = np.clip(np.digitize(confidence, edges) - 1, 0, BINS - 1)
    rows = np.bincount(bins, minlength=BINS)
    filled = rows > 0
    accuracy = np.bincount(bins, weights=correct, minlength=BINS)[filled] / rows[filled]
    mean_confidence = np.bincount(bins, weights=confidence, minlength=BINS)[filled] / rows[filled]
    spread = np.sqrt(accuracy * (1 - accuracy) / rows[filled])

    fig = Figure(figsize=(4.2, 3.4))  # fix the margins, because a layout engine would draw the panel twice
    axes = fig.add_axes((0.14, 0.14, 0.83, 0.83))
    axes.bar(edges[:-1], rows / rows.sum(), width=np.diff(edges), align="edge", color="0.85", edgecolor="white")
    axes.plot(edges[[0, -1]], edges[[0, -1]], color="0.5", linewidth=0.8, linestyle=":", label="perfect calibration")
    axes.errorbar(
        mean_confidence, accuracy, spread, color="#0072B2", marker="o", markersize=4, capsize=2, label="accuracy, ± 1 s.e."
    )
    axes.set_xlabel("largest probability")
    axes.set_ylabel(f"share of {rows.sum():,} rows (bars); accuracy")
    axes.set_ylim(0, 1.03)
    axes.legend(fontsize=7, loc="upper left")
    return fig
