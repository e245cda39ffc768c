"""A head in shards while it is trained (FSDP2): every process holds a part of each weight, its gradient and its AdamW state.

The shards belong to a twin of the head, which alone is trained. The head itself is without weights meanwhile, and gets them
back whole where others look at it: at a validation, and at the end. So nobody else need know of shards.
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
    """A twin of the head with this process's shards of its weights, which are the same on every process; they leave the head.

    A block of the trunk is gathered when it is at work, all else when the twin is. Gradients are summed, not averaged.
    """
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view")  # nobody changes what a head gives in place
    shared = [head.tokenizer, head.reader, *head.parameters(), *head.buffers()]
    twin = copy.deepcopy(head, {id(each): each for each in shared})
    mesh = init_device_mesh(state().device.type, (group.size,))
    for module in (*_blocks(twin), twin):
        fully_shard(module, mesh=mesh)
        assert isinstance(module, FSDPModule)
        module.set_gradient_divide_factor(1.0)
        module.set_force_sum_reduction_for_comms(True)  # gloo has no other
    _empty(head)
    return twin


def join(head: Head, twin: Head) -> None:
    """Give the head the weights of its twin, whole, on every process."""
    for weight, shard in zip(head.parameters(), twin.parameters(), strict=True):
        weight.data = _full(shard.detach())


@contextlib.contextmanager
def joined(head: Head, twin: Head) -> Iterator[None]:
    """Inside, the head has its weights."""
    if twin is head:
        yield
        return
    join(head, twin)
    yield
    _empty(head)


def gathered(tensors: Mapping[str, Tensor], *, keep: bool) -> dict[str, Tensor]:
    """The tensors, those in shards made whole in the CPU's memory, one by one; nothing where they are not kept.

    All processes call it together.
    """
    found = {}
    for name, tensor in tensors.items():
        whole = _full(tensor)
        if keep:
            found[name] = whole.cpu() if whole is not tensor else tensor
    return found


def like(tensor: Tensor, weight: Tensor) -> Tensor:
    """This process's shard of a whole tensor that belongs to `weight`, if that is in shards; else the tensor, in its strides.

    A fused AdamW takes weight, gradient and state in the order of memory: of other strides it would make another training.
    """
    if tensor.shape != weight.shape:  # AdamW counts its steps in a single number
        return tensor
    if not isinstance(weight, DTensor):
        return tensor if tensor.stride() == weight.stride() else torch.empty_like(weight, device=tensor.device).copy_(tensor)
    shard = distribute_tensor(tensor.to(weight.device), weight.device_mesh, weight.placements, src_data_rank=None)
    return shard.clone()  # else it would hold the memory of the whole


def _full(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def _empty(head: Head) -> None:
    for weight in head.parameters():
        weight.data = weight.data.new_empty(0)


def _blocks(head: Head) -> Iterator[nn.Module]:
    """The trunk's layers: the first list of as many modules as the model says that it has; none where there is no such list."""
    count = getattr(head.model.config, "num_hidden_layers", None)
    lists = (module for module in head.model.base_model.modules() if isinstance(module, nn.ModuleList))
    return iter(next((found for found in lists if len(found) == count), ()))
