"""Which examples are trained on together: batches of similar length, cut into what goes through the model at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch

from w2s_mlflow.gradients import IDLE
from w2s_mlflow.heads import Batch, Encoded
from w2s_mlflow.processes import Group
from w2s_mlflow.records import Ints

POOL = 50
"""Batches that are shuffled together and then sorted by length, so that little is padded and much is random."""


def batches(lengths_N: Ints, batch_size: int, order: np.random.Generator) -> Iterator[Ints]:
    """One epoch: every example once, in random batches of similar length; the last batch may be smaller, none is dropped."""
    shuffled = order.permutation(len(lengths_N))
    found: list[Ints] = []
    for start in range(0, len(shuffled), POOL * batch_size):
        pool = shuffled[start : start + POOL * batch_size]
        pool = pool[np.argsort(lengths_N[pool], kind="stable")]
        found += [pool[i : i + batch_size] for i in range(0, len(pool), batch_size)]
    for index in order.permutation(len(found)):
        yield found[index]


def parts(examples: Ints, micro_batch: int | None) -> list[Ints]:
    """A batch's examples in parts that go through the model at once."""
    size = micro_batch or max(1, len(examples))
    return [examples[start : start + size] for start in range(0, len(examples), size)]


def share(
    data: Encoded, examples: Ints, micro_batch: int | None, device: torch.device, group: Group, *, even: bool
) -> list[Batch]:
    """The parts of a batch that are this process's; `even`: with so many idle ones that every process has as many parts."""
    found = [_to(data, part, device) for part in parts(group.share(examples), micro_batch)]
    if even:  # no share is larger than the first
        most = len(parts(replace(group, rank=0).share(examples), micro_batch))
        found += [_to(data, examples[:1], device) | {IDLE: torch.ones(())}] * (most - len(found))
    return found


def _to(data: Encoded, examples: Ints, device: torch.device) -> Batch:
    return {name: tensor.to(device) for name, tensor in data.batch(examples).items()}
