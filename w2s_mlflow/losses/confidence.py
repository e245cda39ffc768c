"""The auxiliary confidence loss (Algorithm 4): L = (1 - a) CE(f, f_w) + a CE(f, f_hat).

f is the student's prediction and f_w the weak label; f_hat is the student's own hardened prediction, without gradient, and
a = alpha * min(1, progress / warmup). The loss follows Burns et al. 2023, section 4.3.2. For two classes, the threshold is set
so that the number of positive rows in the whole optimizer batch equals the sum of the weak labels' P(class 1), rounded.

A batch of one row has no threshold between its rows: the row would be positive if its weak label is, whatever the student
predicts. For such a batch (the last one of an epoch may be one) the loss is therefore the cross-entropy with the weak label.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from w2s_mlflow.config import checked_dataclass
from w2s_mlflow.losses import AuxiliaryOptions, weight

if TYPE_CHECKING:
    from torch import Tensor

PER_EXAMPLE = False  # the terms of the rows are not independent: all rows of a batch share one threshold


@checked_dataclass
class Options(AuxiliaryOptions):
    """Options of the confidence loss, whose auxiliary term is the cross-entropy with the student's hardened predictions."""


def loss(logits_NC: Tensor, labels_NC: Tensor, progress: float, options: Options) -> Tensor:
    """Return a scalar: the mean of (1 - a) CE(f, f_w) + a CE(f, f_hat) over rows. For one row of two classes, a is 0."""
    a = 0.0 if logits_NC.shape == (1, 2) else weight(progress, options)
    log_f_NC = logits_NC.log_softmax(dim=-1)
    mixed_NC = (1 - a) * labels_NC + a * hardened(logits_NC.detach(), labels_NC)
    return -(mixed_NC * log_f_NC).sum(dim=-1).mean()  # CE is linear in the labels, so one CE with mixed labels suffices


def hardened(logits_NC: Tensor, labels_NC: Tensor) -> Tensor:
    """Return the hardened predictions f_hat as one-hot rows, (N, C).

    For more than two classes, f_hat is the class with the largest logit of the student. For two classes, it is class 1
    for the k rows with the largest student P(class 1), where k is the sum of the weak labels' P(class 1), rounded, and class 0
    for the other rows.
    """
    classes = logits_NC.shape[1]
    if classes > 2:
        chosen_N = logits_NC.argmax(dim=-1)
    else:
        chosen_N = _most_positive(logits_NC[:, 1] - logits_NC[:, 0], round(labels_NC[:, 1].double().sum().item()))
    return logits_NC.new_zeros(logits_NC.shape).scatter_(1, chosen_N.long()[:, None], 1.0)


def _most_positive(margins_N: Tensor, k: int) -> Tensor:
    # Logit margins rank the rows as P(class 1) does, but do not saturate.
    # Rows with a larger margin than the (k+1)-th largest are positive. If there are no ties, these are exactly k rows.
    # Rows whose margin equals the (k+1)-th largest are all negative, so that the order of rows has no effect.
    if k >= len(margins_N):
        return margins_N == margins_N
    return margins_N > margins_N.sort(descending=True).values[k]
