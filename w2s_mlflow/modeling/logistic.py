"""Linear classifiers on fixed features, fitted to soft labels with an L2 penalty.

The objective is mean_n loss(f_n, y_n) + (l2 / 2) ||w||^2, where f = softmax(logits) and biases are not penalised. With two
classes there is one weight vector w, and the logits are (-z / 2, z / 2) with z = w . x + b; with more there is one per class.
For one-hot labels this is scikit-learn's LogisticRegression with C = 1 / (N l2).

Shape legend: N examples, D features, C classes, K weight vectors (1 for two classes, else C).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from w2s_mlflow.exceptions import DivergedError
from w2s_mlflow.records import Floats, Ints

LOG = logging.getLogger("w2s_mlflow")
GRID = (3.0, 1.0, 0.3, 0.1, 0.03, 0.01)
"""Penalties among which cross-validation chooses, strongest first."""
FOLDS = 4
STEPS = 500
"""Maximum number of L-BFGS steps."""
TOLERANCE = 1e-6
"""L-BFGS stops when no component of the gradient is larger."""
ROUNDS = 15
"""Number of times that targets which depend on the model's own predictions are set anew."""
ADAM_STEPS = 340
"""Number of full-batch AdamW steps for a loss that is not a cross-entropy with given targets."""
FLOOR = 1e-3
"""Share of the standard deviation of all features that is added to that of each feature, so that a feature that does not vary
stays finite."""

Targets = Callable[[Tensor, Tensor, float], Tensor]
"""Function of (logits_NC, labels_NC, progress) that returns the targets of the cross-entropy, (N, C)."""
Loss = Callable[[Tensor, Tensor, float], Tensor]
"""Function of (logits_NC, labels_NC, progress) that returns a scalar."""


@dataclass(frozen=True)
class Standardisation:
    """Mean and scale of each feature, (D,). They are computed on the rows that a classifier is trained on, without labels."""

    mean_D: Floats
    scale_D: Floats

    @classmethod
    def of(cls, features_ND: Floats) -> Standardisation:
        """Return the mean of each feature, and its standard deviation plus FLOOR times that of all features.

        Features that do not vary are logged. They become 0, so they have no effect.
        """
        deviation_D = features_ND.std(axis=0, dtype=np.float64)
        if constant := int((deviation_D == 0).sum()):
            LOG.info("%d of %d features do not vary and are ignored", constant, len(deviation_D))
        scale_D = deviation_D + FLOOR * float(features_ND.std(dtype=np.float64))
        scale_D[scale_D == 0] = 1.0
        return cls(features_ND.mean(axis=0, dtype=np.float64).astype(np.float32), scale_D.astype(np.float32))

    def __call__(self, features_ND: Floats) -> Floats:
        """Return the standardised features."""
        standardised_ND: Floats = np.asarray((features_ND - self.mean_D) / self.scale_D, dtype=np.float32)
        return standardised_ND


@dataclass(frozen=True)
class Classifier:
    """Weights (K, D) and biases (K,) of a linear classifier."""

    weight_KD: Tensor
    bias_K: Tensor

    @classmethod
    def zero(cls, features: int, classes: int) -> Classifier:
        """Return the classifier that gives all classes the same probability. Every fit starts from it."""
        vectors = 1 if classes == 2 else classes
        return cls(torch.zeros(vectors, features), torch.zeros(vectors))

    def logits(self, features_ND: Tensor) -> Tensor:
        """Return the class logits, (N, C)."""
        scores_NK = features_ND @ self.weight_KD.T + self.bias_K
        return torch.cat([-scores_NK / 2, scores_NK / 2], dim=1) if len(self.bias_K) == 1 else scores_NK

    def probabilities(self, features_ND: Floats) -> Floats:
        """Return the class probabilities, (N, C)."""
        probabilities_NC: Floats = self.logits(torch.from_numpy(features_ND)).softmax(dim=1).numpy()
        return probabilities_NC

    def by_class(self) -> tuple[Tensor, Tensor]:
        """Return weights (C, D) and biases (C,) of a linear layer with the same logits."""
        if len(self.bias_K) > 1:
            return self.weight_KD, self.bias_K
        return torch.cat([-self.weight_KD, self.weight_KD]) / 2, torch.cat([-self.bias_K, self.bias_K]) / 2


def fit(
    features_ND: Floats, labels_NC: Floats, l2: float, *, start: Classifier | None = None, intercept: bool = True
) -> Classifier:
    """Minimise the penalised cross-entropy by L-BFGS until it converges.

    Args:
        l2: the penalty, above 0. It keeps the weights finite on separable data.
        start: classifier to start from. The minimum is unique, so it affects only the time.
        intercept: whether there are biases. Without them, they are 0.

    Raises:
        DivergedError: the features or labels are not finite.
    """
    if not (np.isfinite(features_ND).all() and np.isfinite(labels_NC).all()):
        raise DivergedError("the features of the frozen backbone or the labels are not finite, so no classifier fits them")
    features, labels = torch.from_numpy(features_ND), torch.from_numpy(labels_NC)
    begun = start or Classifier.zero(features.shape[1], labels.shape[1])
    weight = begun.weight_KD.clone().requires_grad_()
    bias = begun.bias_K.clone().requires_grad_(intercept)
    parameters = [weight, bias] if intercept else [weight]
    solver = torch.optim.LBFGS(
        parameters,
        max_iter=STEPS,
        tolerance_grad=TOLERANCE,
        tolerance_change=1e-10,
        history_size=20,
        line_search_fn="strong_wolfe",
    )

    def objective() -> Tensor:
        solver.zero_grad()
        value = _cross_entropy(Classifier(weight, bias).logits(features), labels) + l2 / 2 * weight.square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    solver.step(objective)  # type: ignore[no-untyped-call]
    return Classifier(weight.detach(), bias.detach())


def fit_own_targets(
    features_ND: Floats, labels_NC: Floats, l2: float, targets: Targets, *, intercept: bool = True
) -> Classifier:
    """Fit to targets that depend on the classifier's own predictions, in ROUNDS rounds.

    The first fit is to the labels. Round k sets the targets by the predictions of the last fit, with progress k / ROUNDS, and
    fits again. The rounds end early once the targets stay the same.
    """
    features, labels = torch.from_numpy(features_ND), torch.from_numpy(labels_NC)
    fitted, before = fit(features_ND, labels_NC, l2, intercept=intercept), labels
    for k in range(1, ROUNDS + 1):
        chosen = targets(fitted.logits(features), labels, k / ROUNDS)
        if torch.equal(chosen, before):
            continue  # progress alone can still change the targets of the next round
        fitted, before = fit(features_ND, chosen.numpy(), l2, start=fitted, intercept=intercept), chosen
    return fitted


def descend(
    features_ND: Floats, labels_NC: Floats, l2: float, loss: Loss, learning_rate: float, *, intercept: bool = True
) -> Classifier:
    """Minimise any penalised loss by ADAM_STEPS full-batch steps of AdamW, without weight decay.

    The progress passed to the loss grows from 0 to 1 over the steps.

    Raises:
        DivergedError: the loss is not finite.
    """
    features, labels = torch.from_numpy(features_ND), torch.from_numpy(labels_NC)
    begun = Classifier.zero(features.shape[1], labels.shape[1])
    weight, bias = begun.weight_KD.requires_grad_(), begun.bias_K.requires_grad_(intercept)
    optimizer = torch.optim.AdamW([weight, bias] if intercept else [weight], lr=learning_rate, weight_decay=0.0)
    for step in range(ADAM_STEPS):
        optimizer.zero_grad()
        logits = Classifier(weight, bias).logits(features)
        value = loss(logits, labels, step / ADAM_STEPS) + l2 / 2 * weight.square().sum()
        if not bool(torch.isfinite(value)):
            raise DivergedError("the loss on the features of the frozen backbone is not finite; lower --learning-rate")
        value.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return Classifier(weight.detach(), bias.detach())


def choose_l2(
    features_ND: Floats,
    labels_N: Ints,
    groups: Sequence[str],
    classes: int,
    random: np.random.Generator,
    *,
    intercept: bool = True,
) -> float:
    """Return the penalty of GRID with the highest cross-validated accuracy; on a tie, the strongest of them.

    Rows of one group are in the same one of FOLDS folds.

    Args:
        features_ND: standardised features. They are standardised once for all folds, which uses no labels.
    """
    _, group_N = np.unique(np.array(groups), return_inverse=True)
    fold_N = random.permutation(np.arange(group_N.max() + 1) % FOLDS)[group_N]
    labels_NC = np.eye(classes, dtype=np.float32)[labels_N]
    correct = np.zeros(len(GRID))
    for fold in range(min(FOLDS, int(group_N.max()) + 1)):
        rest, fitted = fold_N != fold, None
        for index, l2 in enumerate(GRID):
            fitted = fit(features_ND[rest], labels_NC[rest], l2, start=fitted, intercept=intercept)
            answers_N = fitted.probabilities(features_ND[~rest]).argmax(axis=1)
            correct[index] += (answers_N == labels_N[~rest]).sum()
    return GRID[int(correct.argmax())]


def _cross_entropy(logits_NC: Tensor, labels_NC: Tensor) -> Tensor:
    return -(labels_NC * logits_NC.log_softmax(dim=1)).sum(dim=1).mean()
