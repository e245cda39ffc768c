"""Cross-entropy only on rows where the student is unsure: L = 1/N sum_n [max_c f_nc < .5 + radius] CE(f_n, f_w,n).

Rows on which the student is confident contribute nothing, whatever their labels. The formula is `confidence_window_loss` of
github.com/EleutherAI/w2s, w2s/loss.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from w2s_mlflow.config import checked_dataclass, option

if TYPE_CHECKING:
    from torch import Tensor

PER_EXAMPLE = True


@checked_dataclass
class Options:
    """Options of the window loss, which set its confidence threshold."""

    radius: float = option(default=0.15, gt=0, le=0.5)
    """Half-width of the window, in (0, .5]: a row counts if the student's largest probability is below .5 + radius."""


def loss(logits_NC: Tensor, labels_NC: Tensor, progress: float, options: Options) -> Tensor:
    """Return a scalar: the sum of CE over the rows in the window, divided by the number of all rows.

    `progress` is unused.
    """
    log_f_NC = logits_NC.log_softmax(dim=-1)
    unsure_N = log_f_NC.detach().exp().amax(dim=-1) < 0.5 + options.radius
    return -((labels_NC * log_f_NC).sum(dim=-1) * unsure_N).mean()
