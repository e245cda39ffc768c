"""The weak labels times the student's own answer: L = CE(f, t), t proportional to f_w^weak_power f^own_power, without gradient.

A product of experts as the target: where the student is sure it is believed more than where it is not. The formula is that of
`product_loss_fct` in the code of Burns et al. 2023 (github.com/openai/weak-to-strong, weak_to_strong/loss.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from w2s_mlflow.config import checked_dataclass, option

if TYPE_CHECKING:
    from torch import Tensor

PER_EXAMPLE = True


@checked_dataclass
class Options:
    """How much either answer counts in the product."""

    weak_power: float = option(default=1.0, ge=0)
    """The power of the weak label in the target; 0 leaves it out."""
    own_power: float = option(default=1.0, ge=0)
    """The power of the student's own answer in the target; 0 gives cross-entropy."""


def loss(logits_NC: Tensor, labels_NC: Tensor, progress: float, options: Options) -> Tensor:
    """CE(f, t), the mean over rows, a scalar. `progress` is not used."""
    log_f_NC = logits_NC.log_softmax(dim=-1)
    product_NC = labels_NC.pow(options.weak_power).log() + options.own_power * log_f_NC.detach()
    return -(product_NC.softmax(dim=-1) * log_f_NC).sum(dim=-1).mean()
