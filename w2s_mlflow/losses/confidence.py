"""The auxiliary confidence loss (Algorithm 4): L = (1 - a) CE(f, f_w) + a CE(f, f_hat).

f_hat is the student's own prediction, hardened, without gradient; a = alpha * min(1, progress / warmup). The idea is that of
Burns et al. 2023, section 4.3.2; the threshold for two classes is set so that as many rows are called positive as the weak
labels say there are, over the whole optimizer batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from w2s_mlflow.config import checked_dataclass
from w2s_mlflow.losses import AuxiliaryOptions, weight

if TYPE_CHECKING:
    from torch import Tensor

PER_EXAMPLE = False  # the threshold is one over all rows


@checked_dataclass
class Options(AuxiliaryOptions):
    """How much the student's own confident predictions count."""


def loss(logits_NC: Tensor, labels_NC: Tensor, progress: float, options: Options) -> Tensor:
    """(1 - a) CE(f, f_w) + a CE(f, f_hat), the mean over rows, a scalar."""
    a = weight(progress, options)
    log_f_NC = logits_NC.log_softmax(dim=-1)
    mixed_NC = (1 - a) * labels_NC + a * hardened(logits_NC.detach(), labels_NC)
    return -(mixed_NC * log_f_NC).sum(dim=-1).mean()  # CE is linear in its labels


def hardened(logits_NC: Tensor, labels_NC: Tensor) -> Tensor:
    """f_hat, one-hot (N, C): the argmax; for C = 2 the k = round(sum of weak P(class 1)) most positive rows are class 1."""
    classes = logits_NC.shape[1]
    if classes > 2:
        chosen_N = logits_NC.argmax(dim=-1)
    else:
        chosen_N = _most_positive(logits_NC[:, 1] - logits_NC[:, 0], round(labels_NC[:, 1].double().sum().item()))
    return logits_NC.new_zeros(logits_NC.shape).scatter_(1, chosen_N.long()[:, None], 1.0)


def _most_positive(margins_N: Tensor, k: int) -> Tensor:
    # Margins order the rows as f_1 does but do not saturate. Strictly above the (k+1)-th largest: no tie, k rows; a tie
    # at the cut goes wholly negative, so that row order decides nothing.
    if k >= len(margins_N):
        return margins_N == margins_N
    return margins_N > margins_N.sort(descending=True).values[k]
