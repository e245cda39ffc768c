"""Probabilities of a fitted head: sorted by length, never padded to the maximum, in the order that was asked for."""

from __future__ import annotations

import numpy as np
import torch

from w2s_mlflow.config import ConfigError
from w2s_mlflow.heads import Encoded, Head
from w2s_mlflow.records import Floats

BATCH = 256


def probabilities(head: Head, data: Encoded, batch_size: int = BATCH) -> Floats:
    """softmax(logits) of every example in `data`, (N, C) float32, in their order; no loss is touched.

    Raises:
        ConfigError: a probability is not finite: the training diverged.
    """
    order = np.argsort(data.lengths_N(), kind="stable")
    device = next(head.parameters()).device
    training = head.training
    head.eval()
    parts = []
    with torch.inference_mode():
        for start in range(0, len(order), batch_size):
            batch = data.batch(order[start : start + batch_size])
            logits_NC = head({name: tensor.to(device) for name, tensor in batch.items()})
            parts.append(logits_NC.float().softmax(dim=-1).cpu().numpy())
    head.train(training)
    sorted_NC = np.concatenate(parts)
    found_NC = np.empty_like(sorted_NC)
    found_NC[order] = sorted_NC
    if not np.isfinite(found_NC).all():
        raise ConfigError("the model's probabilities are not finite: its training diverged, lower --learning-rate")
    return found_NC
