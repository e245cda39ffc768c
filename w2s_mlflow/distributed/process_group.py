"""Several processes that train one head together, each on its share of every optimizer batch (`torchrun`, `accelerate launch`).

All hold the same weights, data and order of batches, and come to the same gradients: those that one process alone would have.
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
    """The processes, and which of them this is; alone by default."""

    rank: int = 0
    size: int = 1

    def share(self, rows: Ints) -> Ints:
        """This process's rows of those of all, consecutive; shares differ by one row at most, and may be empty."""
        return np.array_split(rows, self.size)[self.rank]

    def gather(self, mine: Tensor, rows: int) -> Tensor:
        """The outputs on all `rows` rows, in their order, without gradient; `mine` are those on this process's share."""
        if self.size == 1:
            return mine.detach()
        found = mine.new_zeros((rows, *mine.shape[1:]))
        found[torch.from_numpy(self.share(np.arange(rows)))] = mine.detach()
        return self.total(found)

    def total(self, value: Tensor) -> Tensor:
        """The sum over processes, element by element; `value` is left as it is."""
        if self.size == 1:
            return value
        found = value.clone()
        distributed.all_reduce(found)
        return found

    def any(self, mine: bool) -> bool:
        """Whether it is so on any process."""
        return mine if self.size == 1 else bool(self.total(torch.tensor(int(mine), device=state().device)))

    def agree_on(self, word: str) -> bool:
        """Whether all processes give the same word."""
        if self.size == 1:
            return True
        words = torch.zeros(self.size, dtype=torch.int64, device=state().device)
        words[self.rank] = zlib.crc32(word.encode())
        return len(set(self.total(words).tolist())) == 1

    def sum_gradients(self, weights: Sequence[Tensor]) -> None:
        """Give every process the sum of all gradients; a weight that has none on any process keeps none."""
        if self.size == 1:
            return
        used = torch.tensor([float(weight.grad is not None) for weight in weights], device=weights[0].device)
        for weight, count in zip(weights, self.total(used).tolist(), strict=True):
            if count:
                weight.grad = self.total(torch.zeros_like(weight) if weight.grad is None else weight.grad)


ALONE = Group()


def state() -> PartialState:
    """accelerate's state of this process: its device and its place among the others, which it joins on the first call."""
    from accelerate import PartialState
    from accelerate.utils import parse_flag_from_env

    cpu = parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available()
    return PartialState(cpu=cpu)  # unless it is told, it takes processes without an accelerator for strangers


def current() -> Group:
    """The group that this process was launched in."""
    return Group(state().process_index, state().num_processes)


def joined() -> Group:
    """The group, if this process has joined it; else alone. It needs torch only, as a model does that is served."""
    if distributed.is_available() and distributed.is_initialized():
        return Group(distributed.get_rank(), distributed.get_world_size())
    return ALONE
