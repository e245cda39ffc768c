"""Cross-entropy with soft labels: CE(f, y) = mean_n -sum_c y_nc log f_nc, where f = softmax(logits)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from w2s_mlflow.config import checked_dataclass

if TYPE_CHECKING:
    from torch import Tensor

PER_EXAMPLE = True


@checked_dataclass
class Options:
    """Cross-entropy has no options."""


def loss(logits_NC: Tensor, labels_NC: Tensor, progress: float, options: Options) -> Tensor:
    """Return a scalar: the mean of CE(f, y) over rows (Algorithm 3). `progress` and `options` are unused."""
    return -(labels_NC * logits_NC.log_softmax(dim=-1)).sum(dim=-1).mean()
