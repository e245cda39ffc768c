"""Weak labels for the unsure only: L = 1/N sum_n [max_c f_nc < .5 + radius] CE(f_n, f_w,n).

A row of which the student is sure is left as it is, whatever its label says. The formula is that of `confidence_window_loss` in
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
    """Who is unsure."""

    radius: float = option(default=0.15, gt=0, le=0.5)
    """A row counts while the student's largest probability is below .5 + radius, radius in (0, .5]."""


def loss(logits_NC: Tensor, labels_NC: Tensor, progress: float, options: Options) -> Tensor:
    """The sum over rows that count by the number of all rows, a scalar. `progress` is not used."""
    log_f_NC = logits_NC.log_softmax(dim=-1)
    unsure_N = log_f_NC.detach().exp().amax(dim=-1) < 0.5 + options.radius
    return -((labels_NC * log_f_NC).sum(dim=-1) * unsure_N).mean()
