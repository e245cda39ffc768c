"""Process group of a distributed launch (`torchrun`, `accelerate launch`): each rank trains on its share of every batch.

All ranks have the same weights, data and batch order. The gradients are summed over all ranks, which gives the
same gradients as training in a single process.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, distributed

from w2s_mlflow.records import Ints

if TYPE_CHECKING:
    from accelerate import PartialState


@dataclass(frozen=True)
class Group:
    """The size of a process group, and the rank of this process. The default is a group of this process alone."""

    rank: int = 0
    size: int = 1

    def share(self, rows: Ints) -> Ints:
        """Return this rank's share of `rows`, which consists of consecutive rows.

        The sizes of the ranks' shares differ by at most one row. A share may be empty.
        """
        return np.array_split(rows, self.size)[self.rank]

    def gather(self, local: Tensor, rows: int) -> Tensor:
        """Gather a model's outputs from all ranks. Return them for all rows, in the order of the rows and without gradients.

        Args:
            local: outputs for this rank's share of the rows.
            rows: total number of rows of all ranks.
        """
        if self.size == 1:
            return local.detach()
        outputs = local.new_zeros((rows, *local.shape[1:]))
        outputs[torch.from_numpy(self.share(np.arange(rows)))] = local.detach()
        return self.total(outputs)

    def total(self, value: Tensor) -> Tensor:
        """Return the element-wise sum of `value` over all ranks, without modifying `value`."""
        if self.size == 1:
            return value
        result = value.clone()
        distributed.all_reduce(result)
        return result

    def any(self, value: bool) -> bool:
        """Return whether `value` is true on any rank."""
        return value if self.size == 1 else bool(self.total(torch.tensor(int(value), device=state().device)))

    def agree_on(self, word: str) -> bool:
        """Return whether all ranks call this with the same `word`."""
        if self.size == 1:
            return True
        digests = torch.zeros(self.size, dtype=torch.int64, device=state().device)
        digests[self.rank] = zlib.crc32(word.encode())
        return len(set(self.total(digests).tolist())) == 1

    def sum_gradients(self, weights: Sequence[Tensor]) -> None:
        """Replace the gradient of each weight by its sum over all ranks, or keep None if no rank has a gradient."""
        if self.size == 1:
            return
        used = torch.tensor([float(weight.grad is not None) for weight in weights], device=weights[0].device)
        for weight, count in zip(weights, self.total(used).tolist(), strict=True):
            if count:
                weight.grad = self.total(torch.zeros_like(weight) if weight.grad is None else weight.grad)


ALONE = Group()


def state() -> PartialState:
    """Return accelerate's state of this process (device and rank). The first call joins the process group."""
    from accelerate import PartialState
    from accelerate.utils import parse_flag_from_env

    cpu = parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available()
    return PartialState(cpu=cpu)  # with cpu=False, processes without an accelerator would not form a group


def current() -> Group:
    """Return the process group of this launch. Join it first if necessary."""
    return Group(state().process_index, state().num_processes)


def joined() -> Group:
    """Return the process group if this process has joined it, else ALONE.

    Unlike `current`, this function does not import accelerate, so that a served model can call it where accelerate is missing.
    """
    if distributed.is_available() and distributed.is_initialized():
        return Group(distributed.get_rank(), distributed.get_world_size())
    return ALONE
