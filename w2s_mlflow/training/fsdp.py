"""Sharded training of a head with FSDP2: each rank holds a shard of every weight, its gradient and its AdamW state.

A copy of the head, called the twin, holds the shards and is trained. Meanwhile the original head has no weights. It gets the
full weights for validation and after training, so that other modules need not know about sharding.
"""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from w2s_mlflow.distributed.process_group import Group, state
from w2s_mlflow.modeling.heads import Head


def split(head: Head, group: Group) -> Head:
    """Return a copy of the head (the twin) that holds this rank's shard of each weight, and remove all weights from the head.

    The weights must be equal on all ranks. The weights of a backbone block are gathered only while the block runs, all other
    weights while the twin runs. Gradients are summed over ranks, not averaged.
    """
    # FSDP2 warns that outputs which are views must not be modified in place. This package never does that.
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view")
    shared = [head.tokenizer, head.reader, *head.parameters(), *head.buffers()]
    twin = copy.deepcopy(head, {id(item): item for item in shared})
    mesh = init_device_mesh(state().device.type, (group.size,))
    for module in (*_blocks(twin), twin):
        fully_shard(module, mesh=mesh)
        assert isinstance(module, FSDPModule)
        module.set_gradient_divide_factor(1.0)
        module.set_force_sum_reduction_for_comms(True)  # the backend gloo can sum gradients, but not average them
    _empty(head)
    return twin


def join(head: Head, twin: Head) -> None:
    """Gather the full weights from the shards of `twin`, and assign them to the head on every rank."""
    for weight, shard in zip(head.parameters(), twin.parameters(), strict=True):
        weight.data = _full(shard.detach())


@contextlib.contextmanager
def joined(head: Head, twin: Head) -> Iterator[None]:
    """Context manager that gives the head its full weights, and removes them again on exit.

    If training is not sharded, the head has its full weights anyway, and nothing is done.
    """
    if twin is head:
        yield
        return
    join(head, twin)
    yield
    _empty(head)


def gathered(tensors: Mapping[str, Tensor], *, keep: bool) -> dict[str, Tensor]:
    """Gather each sharded tensor into a full tensor on the CPU. Return all tensors by name.

    All ranks must call this function together. A rank whose `keep` is false takes part in the gathering, but gets an
    empty dict. Tensors are gathered one by one.
    """
    full_tensors = {}
    for name, tensor in tensors.items():
        full = _full(tensor)
        if keep:
            full_tensors[name] = full.cpu() if full is not tensor else tensor
    return full_tensors


def like(tensor: Tensor, weight: Tensor) -> Tensor:
    """Convert a full tensor to the layout of `weight`: to this rank's shard if `weight` is sharded, else to the same strides.

    Fused AdamW processes weight, gradient and state in memory order, so different strides would change the training.
    """
    if tensor.shape != weight.shape:  # only AdamW's step count, a scalar, has a shape other than its weight
        return tensor
    if not isinstance(weight, DTensor):
        return tensor if tensor.stride() == weight.stride() else torch.empty_like(weight, device=tensor.device).copy_(tensor)
    shard = distribute_tensor(tensor.to(weight.device), weight.device_mesh, weight.placements, src_data_rank=None)
    return shard.clone()  # `shard` is a view that keeps the full tensor in memory


def _full(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def _empty(head: Head) -> None:
    for weight in head.parameters():
        weight.data = weight.data.new_empty(0)


def _blocks(head: Head) -> Iterator[nn.Module]:
    """Return the backbone's blocks: the modules of the first ModuleList of length `num_hidden_layers`, if there is one."""
    count = getattr(head.model.config, "num_hidden_layers", None)
    lists = (module for module in head.model.base_model.modules() if isinstance(module, nn.ModuleList))
    return iter(next((modules for modules in lists if len(modules) == count), ()))
