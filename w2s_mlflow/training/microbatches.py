"""Gradients of an optimizer batch, computed in micro-batches even for losses that need all logits of the batch at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from w2s_mlflow.distributed.process_group import ALONE, Group
from w2s_mlflow.modeling.heads import Batch, Head

Forward = Callable[[Batch], Tensor]
Loss = Callable[[Tensor, Tensor, float], Tensor]
IDLE = "idle"
"""Key that marks a micro-batch as idle. An idle micro-batch passes through the model but has no effect on the gradients. With
sharded weights (fsdp.py) all ranks must make the same number of passes, so a rank with fewer micro-batches adds idle ones."""


@dataclass(frozen=True)
class PerExampleLoss:
    """A loss that is a mean of independent terms, one per row (`PER_EXAMPLE` in losses/)."""

    loss: Loss

    def __call__(self, logits_NC: Tensor, labels_NC: Tensor, progress: float) -> Tensor:
        return self.loss(logits_NC, labels_NC, progress)


def forward_in(model: Forward, dtype: str) -> Forward:
    """Return a function that runs the forward pass in `dtype`, float32 or bfloat16; weights and outputs stay float32."""
    if dtype == "float32":
        return model

    def forward(batch: Batch) -> Tensor:
        with torch.autocast(_device(batch).type, torch.bfloat16):
            return model(batch)

    return forward


def batch_gradients(
    forward: Forward,
    head: Head,
    batch: Sequence[Batch],
    labels_NC: Tensor | None,
    loss: Loss,
    progress: float,
    backward: Callable[..., Any],
    group: Group = ALONE,
) -> Tensor:
    """Return the scalar loss of a whole optimizer batch, and accumulate its gradients in the weights.

    With a `PerExampleLoss` each micro-batch passes through the model once. Any other loss may need all logits at once, so if
    there are several micro-batches, each passes through the model twice. The first passes, without gradient, yield all logits,
    the loss and its gradient with respect to the logits. The second passes backpropagate that gradient; they start from the
    random states of the first passes, so that dropout drops the same units. In distributed training each rank computes the
    gradients of its share of the rows, and the sum over ranks is the batch's gradient (`Group.sum_gradients`).

    Args:
        batch: the micro-batches of this rank's share.
        labels_NC: the labels of the whole batch, in batch order; None for language modelling, whose targets are in the text.
        backward: function that backpropagates from a tensor. Its argument `gradient` is given if the tensor is not a scalar.
    """
    forward = _drop_idle(forward)
    if labels_NC is None:
        targets = [head.targets(part)[: 0 if IDLE in part else None] for part in batch]
        tokens = group.total(torch.tensor(float(sum(map(len, targets))), device=next(head.parameters()).device))
        return _accumulate(forward, batch, targets, tokens, loss, progress, backward, group)
    if isinstance(loss, PerExampleLoss):
        count = torch.tensor(float(len(labels_NC)), device=labels_NC.device)
        return _accumulate(forward, batch, _labels(batch, labels_NC, group), count, loss, progress, backward, group)
    if len(batch) == 1 and group.size == 1:
        value = loss(forward(batch[0]), labels_NC, progress)
        backward(value)
        return value
    states, logits_by_part, device = [], [labels_NC[:0]], labels_NC.device
    with torch.set_grad_enabled(len(batch) == 1):  # a single micro-batch keeps its autograd graph and needs no second pass
        for part in batch:
            states.append(_random(device))
            logits_by_part.append(forward(part))
    logits_NC = group.gather(torch.cat(logits_by_part), len(labels_NC)).requires_grad_()
    value = loss(logits_NC, labels_NC, progress)
    (gradient_NC,) = torch.autograd.grad(value, logits_NC)
    states_after_loss, share_N = _random(device), torch.from_numpy(group.share(np.arange(len(labels_NC))))
    shares = torch.split(gradient_NC[share_N], [len(logits) for logits in logits_by_part])
    for part, state, logits, share in zip(batch, states, logits_by_part[1:], shares[1:], strict=True):
        if len(batch) > 1:
            _set_random(state, device)
            logits = forward(part)
        backward(logits, gradient=share)
    _set_random(states_after_loss, device)  # continue as if the second passes had not drawn random numbers
    return value.detach()


def _labels(batch: Sequence[Batch], labels_NC: Tensor, group: Group) -> Sequence[Tensor]:
    """Return the labels of the examples in each micro-batch."""
    share_NC = labels_NC[torch.from_numpy(group.share(np.arange(len(labels_NC))))]
    row_counts = [0 if IDLE in part else len(part["input_ids"]) for part in batch]
    # The head `reward` encodes each example as two rows; all other heads use one.
    rows_per_example = max(1, sum(row_counts) // max(1, len(share_NC)))
    return torch.split(share_NC, [count // rows_per_example for count in row_counts])


def _accumulate(
    forward: Forward,
    batch: Sequence[Batch],
    targets: Sequence[Tensor],
    total: Tensor,
    loss: Loss,
    progress: float,
    backward: Callable[..., Any],
    group: Group,
) -> Tensor:
    """Implement `batch_gradients` for a loss that is a mean over `total` targets, one micro-batch at a time.

    The loss of each micro-batch is weighted by its share of the targets. In language modelling, only the logits of one
    micro-batch are therefore in memory at a time.
    """
    value = torch.zeros((), device=total.device)
    for part, part_targets in zip(batch, targets, strict=True):
        if len(part_targets):
            mean = loss(forward(part), part_targets, progress) * (len(part_targets) / total)
            backward(mean)
            value = value + mean.detach()
        elif group.size > 1 and total:
            backward(output := forward(part), gradient=torch.zeros_like(output))
    return group.total(value)


def _drop_idle(forward: Forward) -> Forward:
    """Wrap the model so that it returns no output rows for idle micro-batches."""

    def forward_without_idle(batch: Batch) -> Tensor:
        output = forward(batch)
        return output[:0] if IDLE in batch else output

    return forward_without_idle


def _device(batch: Batch) -> torch.device:
    return batch["input_ids"].device


def _random(device: torch.device) -> list[Tensor]:
    """Return the random state of the CPU, followed by that of `device` if it is an accelerator."""
    states = [torch.get_rng_state()]
    return states if device.type == "cpu" else [*states, torch.get_device_module(device).get_rng_state()]


def _set_random(states: Sequence[Tensor], device: torch.device) -> None:
    torch.set_rng_state(states[0])
    for state in states[1:]:
        torch.get_device_module(device).set_rng_state(state)
