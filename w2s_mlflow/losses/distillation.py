"""Knowledge distillation at a temperature T: L = T^2 CE(softmax(z / T), softmax(log f_w / T)).

z are the student's logits and f_w the label. Hinton et al. 2015 (arXiv:1503.02531, section 2) divide the logits of both models
by T; log f_w equals the teacher's logits up to a constant. The factor T^2 keeps the size of the gradient, which otherwise falls
with 1 / T^2. At T = 1 the loss is the cross-entropy. For large T its gradient tends to (z - log f_w) / C, with both centred
over the C classes (their eq. 4).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from w2s_mlflow.config import checked_dataclass, option

if TYPE_CHECKING:
    from torch import Tensor

PER_EXAMPLE = True
LOWEST, HIGHEST = 0.01, 100.0
"""Bounds of the temperature. Beyond them, float32 cannot resolve the loss."""


@checked_dataclass
class Options:
    """Options of the distillation loss."""

    distillation_temperature: float = option(default=2.0, introduced=2.0, ge=LOWEST, le=HIGHEST)
    """Temperature that divides the logits of the label and of the student. 1: cross-entropy."""


def loss(logits_NC: Tensor, labels_NC: Tensor, progress: float, options: Options) -> Tensor:
    """Return a scalar: the mean of T^2 CE over rows. `progress` is unused."""
    temperature = options.distillation_temperature
    target_NC = (labels_NC.log() / temperature).softmax(dim=-1)
    log_f_NC = (logits_NC / temperature).log_softmax(dim=-1)
    return -(temperature**2) * (target_NC * log_f_NC).sum(dim=-1).mean()
