"""Cross-entropy with a product of experts as target: L = CE(f, t), where t is proportional to f_w^weak_power f^own_power.

No gradient flows through t. The target multiplies the weak label f_w and the student's prediction f, so f counts more where
the student is confident. The formula is `product_loss_fct` of Burns et al. 2023 (github.com/openai/weak-to-strong,
weak_to_strong/loss.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from w2s_mlflow.config import checked_dataclass, option

if TYPE_CHECKING:
    from torch import Tensor

PER_EXAMPLE = True


@checked_dataclass
class Options:
    """Options of the product loss: the exponents of the two factors."""

    weak_power: float = option(default=1.0, ge=0)
    """Exponent of the weak label in the target. If 0, the weak label is ignored."""
    own_power: float = option(default=1.0, ge=0)
    """Exponent of the student's own prediction in the target. If it is 0 and weak_power is 1, the target is the weak
    label."""


def loss(logits_NC: Tensor, labels_NC: Tensor, progress: float, options: Options) -> Tensor:
    """Return a scalar: the mean of CE(f, t) over rows. `progress` is unused."""
    log_f_NC = logits_NC.log_softmax(dim=-1)
    # xlogy(power, y) = power log y, and 0 for power 0. The logarithm of y^power would be -inf where the power underflows.
    weak_NC = labels_NC.new_tensor(options.weak_power).xlogy(labels_NC)
    product_NC = weak_NC + options.own_power * log_f_NC.detach()
    return -(product_NC.softmax(dim=-1) * log_f_NC).sum(dim=-1).mean()
