"""Inference with a head. Examples are batched by length to reduce padding; outputs are returned in the original order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from w2s_mlflow.distributed import process_group
from w2s_mlflow.exceptions import DivergedError
from w2s_mlflow.modeling import token_batches
from w2s_mlflow.modeling.heads import Batch, Classification, Encoded, Head
from w2s_mlflow.records import Floats


def probabilities(head: Head, data: Encoded, micro_batch: int | None = None, dtype: str = "float32") -> Floats:
    """Return the class probabilities of all examples, softmax(logits), in the order of `data`, as float32 (N, C).

    Args:
        micro_batch: maximum size of a forward pass, counted in examples as long as the longest one in `data`. The
            limit token_batches.BUDGET applies as well; if `micro_batch` is None, it is the only limit.
        dtype: precision of the forward pass, float32 or bfloat16.

    Raises:
        DivergedError: a probability is not finite because training diverged.
    """
    probabilities_NC = _apply(head, lambda batch: head(batch).float().softmax(dim=-1), data, micro_batch, dtype)
    if not np.isfinite(probabilities_NC).all():
        raise DivergedError("the model's probabilities are not finite because its training diverged; lower --learning-rate")
    return probabilities_NC


def outputs(head: Head, data: Encoded, micro_batch: int | None = None, dtype: str = "float32") -> Floats:
    """Return the head's outputs for all examples, in the order of `data`. The arguments are those of `probabilities`."""
    return _apply(head, lambda batch: head(batch).float(), data, micro_batch, dtype)


def pooled(head: Classification, data: Encoded, micro_batch: int | None = None, dtype: str = "float32") -> Encoded:
    """Return a copy of `data` that also holds the backbone's pooled output for each row.

    With these outputs, a linear layer can be trained without running the backbone.
    """
    k = data.rows_per_example
    pooled_NKD = _apply(
        head, lambda batch: torch.unflatten(head.pooled_RD(batch).float(), 0, (-1, k)), data, micro_batch, dtype
    )
    return replace(data, pooled_RD=pooled_NKD.reshape(-1, pooled_NKD.shape[-1]))


def layers(head: Head, data: Encoded, pooling: str, micro_batch: int | None = None, dtype: str = "float32") -> Floats:
    """Return one pooled vector per example and layer, (N, K, D), computed in one pass over the examples.

    If examples have two token rows (head `reward`), the vector is that of the first row minus that of the second.
    """
    k = data.rows_per_example

    def vectors(batch: Batch) -> Tensor:
        rows_NRKD = torch.unflatten(head.layers_RKD(batch, pooling).float(), 0, (-1, k))
        return rows_NRKD[:, 0] - rows_NRKD[:, 1] if k == 2 else rows_NRKD[:, 0]

    return _apply(head, vectors, data, micro_batch, dtype)


def _apply(head: Head, function: Callable[[Batch], Tensor], data: Encoded, micro_batch: int | None, dtype: str) -> Floats:
    """Apply `function` to all examples in batches, with dropout off, and return its outputs in the order of `data`.

    In a distributed launch each rank computes its share of every batch.
    """
    device, group = next(head.parameters()).device, process_group.joined()
    batches = token_batches.by_length(data.lengths_N(), micro_batch, rows=data.rows_per_example, processes=group.size)
    training = head.training
    head.eval()
    outputs = []
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=dtype == "bfloat16"):
        for rows in batches:
            # A rank without examples would not know the shape of the output. If a batch has fewer examples than ranks, every
            # rank therefore computes the whole batch.
            ranks = group if len(rows) >= group.size else process_group.ALONE
            batch = data.batch(ranks.share(rows))
            output = function({name: tensor.to(device) for name, tensor in batch.items()})
            outputs.append(ranks.gather(output, len(rows)).cpu().numpy())
    head.train(training)
    sorted_N = np.concatenate(outputs)
    outputs_N = np.empty_like(sorted_N)
    outputs_N[np.concatenate(batches)] = sorted_N
    return outputs_N
