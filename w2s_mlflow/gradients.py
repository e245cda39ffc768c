"""The gradients of one optimizer batch, which may go through the model in parts: the loss has the whole batch all the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from w2s_mlflow.heads import Batch, Head

Answer = Callable[[Batch], Tensor]
Loss = Callable[[Tensor, Tensor, float], Tensor]


def computing(learner: Answer, dtype: str) -> Answer:
    """The learner, which computes in `dtype`, float32 or bfloat16; its weights and what it gives back are float32."""
    if dtype == "float32":
        return learner

    def answer(batch: Batch) -> Tensor:
        with torch.autocast(_device(batch).type, torch.bfloat16):
            return learner(batch)

    return answer


def of_batch(
    answer: Answer, head: Head, batch: Sequence[Batch], loss: Loss, progress: float, backward: Callable[..., Any]
) -> Tensor:
    """The loss on a whole optimizer batch, a scalar; its gradients are added to those of the weights.

    A loss may need all logits at once. So with several parts each first goes through the model without gradient; the loss on
    all of them gives the gradient at the logits; and each part goes through again, from the random state that it had, to
    take its own share of that back. Dropout so drops the same twice.

    Args:
        batch: its parts.
        backward: backpropagates a tensor, from a `gradient` where it is no scalar.
    """
    if len(batch) == 1:
        value = loss(answer(batch[0]), head.targets(batch[0]), progress)
        backward(value)
        return value
    states, parts, device = [], [], _device(batch[0])
    for part in batch:
        states.append(_random(device))
        with torch.no_grad():
            parts.append(answer(part))
    logits = torch.cat(parts).requires_grad_()
    value = loss(logits, torch.cat([head.targets(part) for part in batch]), progress)
    (gradient,) = torch.autograd.grad(value, logits)
    after = _random(device)
    for part, state, share in zip(batch, states, torch.split(gradient, [len(rows) for rows in parts]), strict=True):
        _set_random(state, device)
        backward(answer(part), gradient=share)
    _set_random(after, device)  # the loss, too, may have drawn
    return value


def _device(batch: Batch) -> torch.device:
    return batch["input_ids"].device


def _random(device: torch.device) -> list[Tensor]:
    """The random states that a model draws from: the CPU's, and its device's own."""
    states = [torch.get_rng_state()]
    return states if device.type == "cpu" else [*states, torch.get_device_module(device).get_rng_state()]


def _set_random(states: Sequence[Tensor], device: torch.device) -> None:
    torch.set_rng_state(states[0])
    for state in states[1:]:
        torch.get_device_module(device).set_rng_state(state)
