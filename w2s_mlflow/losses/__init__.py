"""Training losses of a student. Each file defines one loss: a pure function of (logits_NC, labels_NC, progress, options).

Every file defines a frozen dataclass `Options`, a function `loss(logits_NC, labels_NC, progress, options) -> scalar` and a
constant `PER_EXAMPLE`. `logits_NC` and `labels_NC` (probabilities) cover the whole optimizer batch, and `progress` in [0, 1]
is the fraction of training done. `PER_EXAMPLE` is True if the loss is a mean of independent terms, one per row; each
micro-batch then passes through the model only once (training/microbatches.py).
"""

from __future__ import annotations

import dataclasses
from typing import Any

from w2s_mlflow.config import checked_dataclass, option

# The paper's values of alpha: the first is for large students, the second for all other students.
ALPHA_LARGE, ALPHA_SMALL = 0.75, 0.5


@checked_dataclass
class AuxiliaryOptions:
    """Options of a loss with an auxiliary term on the student's own predictions."""

    alpha: float | None = option(default=None, ge=0, le=1)
    """Weight of the auxiliary term, in [0, 1]. Default: .75 for a large student, .5 otherwise."""
    warmup: float = option(default=0.2, ge=0, le=1)
    """Fraction of training, in [0, 1], over which the weight grows linearly from 0 to alpha. If 0, the weight is constant."""


def weight(progress: float, options: AuxiliaryOptions) -> float:
    """Return the auxiliary term's weight a = alpha * min(1, progress / warmup), or alpha if warmup is 0 (Algorithm 4)."""
    assert options.alpha is not None, "alpha must be resolved from the model's tier before training"
    return options.alpha * (min(1.0, progress / options.warmup) if options.warmup else 1.0)


def resolve(options: Any, *, large: bool) -> Any:
    """Return the options after replacing `alpha=None` by the paper's value, which is higher for a large model."""
    if getattr(options, "alpha", 0.0) is None:
        return dataclasses.replace(options, alpha=ALPHA_LARGE if large else ALPHA_SMALL)
    return options
