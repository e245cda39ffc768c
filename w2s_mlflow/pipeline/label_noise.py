"""Label noise whose errors have nothing to do with the text of a row, for the controls of weak labels."""

from __future__ import annotations

import numpy as np

from w2s_mlflow.records import Floats, Ints

BINS = 10
"""Number of bins of confidence (deciles) within which errors are permuted over rows."""


def matched(weak_NC: Floats, gold_N: Ints, random: np.random.Generator) -> Floats:
    """Return labels that are as accurate and as soft as weak labels, but whose errors are at random rows.

    Each row keeps its probabilities and thereby its confidence (the largest of them); only their order among the classes
    changes. The gold class gets the probability of a rank: rank 0 is the largest probability, so the label is right. The ranks
    are those of the gold classes in the weak labels, permuted over the rows of each decile of confidence. So, per decile and as
    a whole, the labels have the accuracy of the weak labels, for every k their top-k accuracy, and, up to the differences of
    probabilities within a decile, their cross-entropy. The other classes get the other probabilities in random order: if the
    label is wrong, every other class is equally probable to be its answer, and not the class that misled the weak model.
    With two classes this permutes which labels are right.

    Args:
        weak_NC: probabilities of the weak labels. If the largest are equal, the first class is the answer.
        gold_N: gold classes.
    """
    order_NC = np.argsort(-weak_NC, axis=1, kind="stable")
    rank_N = (order_NC == gold_N[:, None]).argmax(axis=1)
    by_confidence_N = np.argsort(weak_NC.max(axis=1), kind="stable")
    for rows in np.array_split(by_confidence_N, BINS):
        rank_N[rows] = rank_N[random.permutation(rows)]
    sorted_NC = np.take_along_axis(weak_NC, order_NC, axis=1)
    return _placed(sorted_NC, rank_N, gold_N, random)


def _placed(sorted_NC: Floats, rank_N: Ints, gold_N: Ints, random: np.random.Generator) -> Floats:
    """Give the gold class of each row the probability at its rank, and the other classes the others in random order."""
    rows, classes = sorted_NC.shape
    placed_NC = np.empty_like(sorted_NC)
    is_gold_NC = np.arange(classes) == gold_N[:, None]
    is_taken_NC = np.arange(classes) == rank_N[:, None]
    placed_NC[is_gold_NC] = sorted_NC[is_taken_NC]
    others_NC = sorted_NC[~is_taken_NC].reshape(rows, classes - 1)
    placed_NC[~is_gold_NC] = random.permuted(others_NC, axis=1).reshape(-1)
    return placed_NC
