"""What a head says of examples: sorted by length, never padded to the maximum, in the order that was asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from w2s_mlflow.distributed import process_group
from w2s_mlflow.exceptions import FailedTrainingError
from w2s_mlflow.modeling import token_batches
from w2s_mlflow.modeling.heads import Batch, Classify, Encoded, Head
from w2s_mlflow.records import Floats


def probabilities(head: Head, data: Encoded, micro_batch: int | None = None, dtype: str = "float32") -> Floats:
    """softmax(logits) of every example in `data`, (N, C) float32, in their order; no loss is touched.

    Args:
        micro_batch: at most as many tokens at once as so many of the longest examples have; None: token_batches.BUDGET alone.
        dtype: what the model computes in, float32 or bfloat16.

    Raises:
        FailedTrainingError: a probability is not finite: the training diverged.
    """
    found_NC = _each(head, lambda batch: head(batch).float().softmax(dim=-1), data, micro_batch, dtype)
    if not np.isfinite(found_NC).all():
        raise FailedTrainingError("the model's probabilities are not finite: its training diverged, lower --learning-rate")
    return found_NC


def pooled(head: Classify, data: Encoded, micro_batch: int | None = None, dtype: str = "float32") -> Encoded:
    """`data` with what the trunk makes of each row, so that a linear head on a frozen trunk needs the trunk no more."""
    k = data.rows_per_example
    found_NKD = _each(head, lambda batch: torch.unflatten(head.pooled_RD(batch).float(), 0, (-1, k)), data, micro_batch, dtype)
    return replace(data, pooled_RD=found_NKD.reshape(-1, found_NKD.shape[-1]))


def layers(head: Head, data: Encoded, pooling: str, micro_batch: int | None = None, dtype: str = "float32") -> Floats:
    """One vector a layer for every example in `data`, all layers in one pass, (N, K, D); of two rows, their difference."""
    k = data.rows_per_example

    def answer(batch: Batch) -> Tensor:
        rows_NRKD = torch.unflatten(head.layers_RKD(batch, pooling).float(), 0, (-1, k))
        return rows_NRKD[:, 0] - rows_NRKD[:, 1] if k == 2 else rows_NRKD[:, 0]

    return _each(head, answer, data, micro_batch, dtype)


def _each(head: Head, answer: Callable[[Batch], Tensor], data: Encoded, micro_batch: int | None, dtype: str) -> Floats:
    """What `answer` gives for every example, with dropout off; each of several processes is asked for its share of them."""
    device, group = next(head.parameters()).device, process_group.joined()
    batches = token_batches.by_length(data.lengths_N(), micro_batch, rows=data.rows_per_example, processes=group.size)
    training = head.training
    head.eval()
    parts = []
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=dtype == "bfloat16"):
        for rows in batches:
            some = group if len(rows) >= group.size else process_group.ALONE  # of no rows nobody knows the shape
            batch = data.batch(some.share(rows))
            found = answer({name: tensor.to(device) for name, tensor in batch.items()})
            parts.append(some.gather(found, len(rows)).cpu().numpy())
    head.train(training)
    sorted_N = np.concatenate(parts)
    found_N = np.empty_like(sorted_N)
    found_N[np.concatenate(batches)] = sorted_N
    return found_N
