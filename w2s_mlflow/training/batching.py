"""Batches of examples of similar length, and their micro-batches."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch

from w2s_mlflow.distributed.process_group import ALONE, Group
from w2s_mlflow.modeling import token_batches
from w2s_mlflow.modeling.heads import Batch, Encoded
from w2s_mlflow.records import Ints
from w2s_mlflow.training.microbatches import IDLE

POOL = 50
"""Approximate number of batches per pool. Shuffled examples are sorted by length only within a pool: this reduces padding and
keeps batches random."""


def batches(lengths_N: Ints, batch_size: int, order: np.random.Generator) -> Iterator[Ints]:
    """Yield the batches of one epoch in random order. Each holds the indices of examples that are of similar length.

    Shuffled examples are sorted by length within pools. Pool sizes differ by at most one batch, since sorting a small last
    pool would gain little. No example is dropped, so one batch may be smaller.
    """
    shuffled = order.permutation(len(lengths_N))
    count = math.ceil(len(shuffled) / batch_size)
    pools = max(1, round(count / POOL))
    batch_list: list[Ints] = []
    for pool in np.split(shuffled, batch_size * (np.arange(1, pools) * count // pools)):
        pool = pool[np.argsort(lengths_N[pool], kind="stable")]
        batch_list += [pool[i : i + batch_size] for i in range(0, len(pool), batch_size)]
    for index in order.permutation(len(batch_list)):
        yield batch_list[index]


def micro_batch_rows(data: Encoded, examples: Ints, micro_batch: int | None, group: Group = ALONE) -> list[Ints]:
    """Return this rank's share of a batch, split into micro-batches of example indices.

    A micro-batch has at most `micro_batch` * L tokens, including padding, where L is the length of the longest example in the
    whole batch. If `micro_batch` is None, the share is one micro-batch.
    """
    rows = group.share(examples)
    if micro_batch is None:
        return [rows] if len(rows) else []
    budget = micro_batch * int(data.lengths_N(examples).max())
    return [rows[part] for part in token_batches.batch_slices(data.lengths_N(rows), budget)]


def micro_batches(
    data: Encoded, examples: Ints, micro_batch: int | None, device: torch.device, group: Group, *, even: bool
) -> list[Batch]:
    """Return this rank's share of a batch as micro-batches of tensors.

    Args:
        even: add idle micro-batches, so that all ranks have the same number of micro-batches.
    """
    batches_of_rank = [_to(data, rows, device) for rows in micro_batch_rows(data, examples, micro_batch, group)]
    if even:
        count = max(len(micro_batch_rows(data, examples, micro_batch, replace(group, rank=rank))) for rank in range(group.size))
        batches_of_rank += [_to(data, examples[:1], device) | {IDLE: torch.ones(())}] * (count - len(batches_of_rank))
    return batches_of_rank


def _to(data: Encoded, examples: Ints, device: torch.device) -> Batch:
    return {name: tensor.to(device) for name, tensor in data.batch(examples).items()}
