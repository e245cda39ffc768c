"""Search for the rule over a task's features that predicts gold labels best: how far a shortcut gets without a language model.

Each feature is a number for each of an example's two candidates. Four families of rules are searched:

- one feature: the candidate with the larger, or the smaller, value; or the candidate whose value is at most a threshold;
- lexicographic: one feature decides, or a second one if both candidates have the same value of the first;
- weighted sum: the candidate with the larger sum of two features, with weights from DIRECTIONS directions around the circle;
- boosted trees on the features of both candidates, of the sizes in LEAVES.

The family is chosen by cross-validation: in each fold, the best rule of a family is found without the fold's rows and scored on
them. The best rule of the chosen family is then found on all rows. Ties go to the first family, rule or candidate.

Shape legend: N examples, F features, S signs or directions. The axis of length 2 is that of the candidates.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from w2s_mlflow import streams
from w2s_mlflow.records import Example, Ints

FOLDS = 5
THRESHOLDS = 8
"""Maximum number of thresholds per feature; if a feature has more values, its quantiles are used."""
DIRECTIONS = 64
LEAVES = (4, 16)
"""Maximum numbers of leaves per tree."""
TREES = 100
"""Number of trees."""

Features = NDArray[np.float64]
"""Features of examples, (N, 2, F)."""
Choose = Callable[[Features], Ints]
"""Function that returns the chosen candidate, 0 or 1, of each example."""


@dataclass(frozen=True)
class Rule:
    """A rule that was found, and its description in words."""

    description: str
    choose: Choose


@dataclass(frozen=True)
class Found:
    """Result of a search: the best rule, and the cross-validated accuracy of each family."""

    rule: Rule
    accuracies: Mapping[str, float]


Family = Callable[[Features, Ints, Sequence[str], int], Rule]
"""Function that finds the best rule of a family, given features, gold labels, names of the features and a seed."""


def features_of(examples: Sequence[Example], features: Mapping[str, Callable[[Example, str], float]]) -> Features:
    """Compute the features of examples with two candidates."""
    values = [[[feature(one, word) for feature in features.values()] for word in one.candidates] for one in examples]
    return np.array(values, dtype=np.float64)


def search(features_N2F: Features, gold_N: Ints, groups: Sequence[str], names: Sequence[str], seed: int) -> Found:
    """Find the best rule. Rows of one group are in the same fold."""
    fold_N = _folds(groups, seed)

    def accuracy(family: Family) -> float:
        correct = 0
        for fold in range(FOLDS):
            inside = fold_N == fold
            rule = family(features_N2F[~inside], gold_N[~inside], names, seed)
            correct += int((rule.choose(features_N2F[inside]) == gold_N[inside]).sum())
        return correct / len(gold_N)

    accuracies = {name: accuracy(family) for name, family in FAMILIES.items()}
    best = max(accuracies, key=accuracies.__getitem__)
    return Found(FAMILIES[best](features_N2F, gold_N, names, seed), accuracies)


def _folds(groups: Sequence[str], seed: int) -> Ints:
    """Return the fold of each row, (N,). Rows of one group are in the same fold; the folds of groups are random."""
    _, group_N = np.unique(np.array(groups), return_inverse=True)
    order = streams.generator(seed, streams.RULE_FOLDS).permutation(int(group_N.max()) + 1)
    fold_N: Ints = order[group_N] % FOLDS
    return fold_N


# --- rules of one and two features ------------------------------------------------------------------------------------


def one_feature(features_N2F: Features, gold_N: Ints, names: Sequence[str], seed: int) -> Rule:
    """Find the best rule of one feature or one threshold. `seed` is unused."""
    rules = [
        Rule(f"{('smaller', 'larger')[sign > 0]} {names[f]}", functools.partial(_larger, f, sign))
        for f in range(len(names))
        for sign in (1, -1)
    ]
    rules += [
        Rule(f"{names[f]} {('above', 'at most')[sign < 0]} {threshold:g}", functools.partial(_above, f, threshold, sign))
        for f in range(len(names))
        for threshold in _thresholds(features_N2F[:, :, f])
        for sign in (1, -1)
    ]
    return max(rules, key=lambda rule: int((rule.choose(features_N2F) == gold_N).sum()))


def _thresholds(values_N2: NDArray[np.float64]) -> NDArray[np.float64]:
    values = np.unique(values_N2)[:-1]
    if len(values) <= THRESHOLDS:
        return values
    return np.unique(np.quantile(values_N2, np.arange(1, THRESHOLDS + 1) / (THRESHOLDS + 1)))


def _larger(f: int, sign: int, features_N2F: Features) -> Ints:
    return _second(sign * _differences(features_N2F)[:, f])


def _above(f: int, threshold: float, sign: int, features_N2F: Features) -> Ints:
    above_N2 = sign * (features_N2F[:, :, f] > threshold).astype(np.int64)
    return _second(above_N2[:, 1] - above_N2[:, 0])


def lexicographic(features_N2F: Features, gold_N: Ints, names: Sequence[str], seed: int) -> Rule:
    """Find the best rule in which a second feature decides between candidates that are equal in a first. `seed` is unused."""
    differences_NF = _differences(features_N2F)
    # Score both signs of each feature on the rows that the feature decides, and on the rows that each other feature leaves.
    right_SNF = np.stack([_second(sign * differences_NF) == gold_N[:, None] for sign in (1, -1)])
    decided_NF = differences_NF != 0
    first_SF = (right_SNF & decided_NF).sum(axis=1)
    second_SFF = np.einsum("nf,sng->sfg", (~decided_NF).astype(np.float64), right_SNF.astype(np.float64))
    total_SSFF = first_SF[:, None, :, None] + second_SFF[None]
    sign, other, f, g = (int(index) for index in np.unravel_index(total_SSFF.argmax(), total_SSFF.shape))
    signs = (1, -1)
    words = [f"{('larger', 'smaller')[index]} {names[feature]}" for index, feature in ((sign, f), (other, g))]
    return Rule(f"{words[0]}, on a tie {words[1]}", functools.partial(_first_then, f, signs[sign], g, signs[other]))


def _first_then(f: int, sign: int, g: int, other: int, features_N2F: Features) -> Ints:
    differences_NF = _differences(features_N2F)
    first_N, then_N = sign * differences_NF[:, f], other * differences_NF[:, g]
    return _second(np.where(first_N != 0, first_N, then_N))


def weighted_sum(features_N2F: Features, gold_N: Ints, names: Sequence[str], seed: int) -> Rule:
    """Find the best weighted sum of two features, each divided by its standard deviation. `seed` is unused."""
    differences_NF = _differences(features_N2F)
    scale_F = np.where((spread_F := differences_NF.std(axis=0)) > 0, spread_F, 1)
    angles_S = 2 * np.pi * np.arange(DIRECTIONS) / DIRECTIONS
    direction_2S = np.stack([np.cos(angles_S), np.sin(angles_S)])
    best, chosen = -1, (0, 0, direction_2S[:, 0])
    for f in range(len(names)):
        for g in range(f):
            sums_NS = (differences_NF / scale_F)[:, [f, g]] @ direction_2S
            right_S = (_second(sums_NS) == gold_N[:, None]).sum(axis=0)
            if right_S.max() > best:
                best, chosen = int(right_S.max()), (f, g, direction_2S[:, right_S.argmax()] / scale_F[[f, g]])
    f, g, weights_2 = chosen
    return Rule(f"{weights_2[0]:+.3g} {names[f]} {weights_2[1]:+.3g} {names[g]}", functools.partial(_sum, f, g, weights_2))


def _sum(f: int, g: int, weights_2: NDArray[np.float64], features_N2F: Features) -> Ints:
    return _second(_differences(features_N2F)[:, [f, g]] @ weights_2)


def _differences(features_N2F: Features) -> NDArray[np.float64]:
    difference_NF: NDArray[np.float64] = features_N2F[:, 1] - features_N2F[:, 0]
    return difference_NF


def _second(differences: NDArray[np.float64] | Ints) -> Ints:
    """Choose the second candidate where the difference is positive. Differences that are only rounding count as ties."""
    chosen: Ints = (differences > 1e-9).astype(np.int64)
    return chosen


# --- trees ------------------------------------------------------------------------------------------------------------


def trees(features_N2F: Features, gold_N: Ints, names: Sequence[str], seed: int, *, leaves: int) -> Rule:
    """Fit boosted trees to the features of both candidates and their differences, in both orders of the candidates."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    model = HistGradientBoostingClassifier(
        max_iter=TREES,
        max_leaf_nodes=leaves,
        early_stopping=False,
        random_state=streams.integer(seed, streams.RULE_TREES),
    )
    model.fit(np.concatenate([_columns(features_N2F), _columns(features_N2F[:, ::-1])]), np.concatenate([gold_N, 1 - gold_N]))

    def choose(features_N2F: Features) -> Ints:
        first_N, second_N = (model.predict_proba(_columns(given))[:, 1] for given in (features_N2F, features_N2F[:, ::-1]))
        return _second(first_N - second_N)

    return Rule(f"{TREES} boosted trees of at most {leaves} leaves", choose)


def _columns(features_N2F: Features) -> NDArray[np.float64]:
    return np.concatenate([features_N2F[:, 0], features_N2F[:, 1], _differences(features_N2F)], axis=1)


FAMILIES: dict[str, Family] = {
    "one_feature": one_feature,
    "lexicographic": lexicographic,
    "weighted_sum": weighted_sum,
    **{f"trees_{leaves}": functools.partial(trees, leaves=leaves) for leaves in LEAVES},
}
"""Families of rules, by name."""
