"""Entropy minimisation: L = (1 - a) CE(f, f_w) + a H(f), where H(f) = -sum_c f_c log f_c.

This is the confidence loss, with the same weight a, but with the student's soft prediction in place of the hardened one
(Grandvalet & Bengio 2004). The gradient flows through both factors f_c and log f_c of H. If the first factor were treated as
constant, as in github.com/EleutherAI/w2s (w2s/loss.py), the gradient of H with respect to the logits would be f - f = 0, and
the term would only reduce the weight of the labels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from w2s_mlflow.config import checked_dataclass
from w2s_mlflow.losses import AuxiliaryOptions, weight

if TYPE_CHECKING:
    from torch import Tensor

PER_EXAMPLE = True


@checked_dataclass
class Options(AuxiliaryOptions):
    """Options of the entropy loss, whose auxiliary term is the entropy of the student's predictions."""


def loss(logits_NC: Tensor, labels_NC: Tensor, progress: float, options: Options) -> Tensor:
    """Return a scalar: the mean of (1 - a) CE(f, f_w) + a H(f) over rows."""
    a = weight(progress, options)
    log_f_NC = logits_NC.log_softmax(dim=-1)
    mixed_NC = (1 - a) * labels_NC + a * log_f_NC.exp()
    return -(mixed_NC * log_f_NC).sum(dim=-1).mean()
