"""What a student minimises: one loss per file, each a pure function of (logits_NC, labels_NC, progress, options).

Every file has a frozen `Options` and `loss(logits_NC, labels_NC, progress, options) -> scalar`, where `logits_NC` and
`labels_NC` (probabilities) are those of the whole optimizer batch and `progress` in [0, 1] is the fraction of training done.
"""

from __future__ import annotations

import dataclasses
from typing import Any

# The paper's weights: the auxiliary term counts more for a student far larger than its supervisor.
ALPHA_LARGE, ALPHA_SMALL = 0.75, 0.5


def resolve(options: Any, *, large: bool) -> Any:
    """`alpha=None` becomes the paper's weight for the model's tier."""
    if getattr(options, "alpha", 0.0) is None:
        return dataclasses.replace(options, alpha=ALPHA_LARGE if large else ALPHA_SMALL)
    return options
