"""Selection of trainable parameters (all, low-rank adapters of the backbone, or the head's own), and gradient checkpointing."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

from w2s_mlflow.exceptions import must
from w2s_mlflow.modeling.heads import Head

if TYPE_CHECKING:
    from peft import LoraModel

SCALE = 2
"""Scale of an adapter's product, whatever its rank (alpha = SCALE * rank)."""


@contextlib.contextmanager
def learning(head: Head, *, lora: int | None, freeze: str | None, gradient_checkpointing: bool) -> Iterator[None]:
    """Make only the selected parameters trainable while entered; afterwards adapters are merged and all weights trainable.

    Args:
        lora: rank of the adapters on all linear layers of the backbone, trained together with the head's own weights and drawn
            from the current random state; None: no adapters.
        freeze: "trunk": train only the head's own weights; None: freeze nothing.
        gradient_checkpointing: recompute activations in the backward pass instead of storing them.

    Raises:
        ConfigError: the model does not support gradient checkpointing.
    """
    adapters = _adapters(head, lora) if lora else None
    if freeze == "trunk":
        head.model.requires_grad_(False)
    if gradient_checkpointing:
        _hold_no_activations(head)
    yield
    if gradient_checkpointing:
        head.model.activation_checkpointing_disable()  # type: ignore[no-untyped-call]
        head.model.disable_input_require_grads()  # type: ignore[no-untyped-call]
    if adapters is not None:
        adapters.merge_and_unload(progressbar=False)
    head.requires_grad_(True)


def state(head: Head) -> dict[str, Tensor]:
    """Return the head's state without frozen weights, which stay as loaded; with adapters it is small."""
    frozen = {name for name, weight in head.named_parameters(remove_duplicate=False) if not weight.requires_grad}
    return {name: tensor for name, tensor in head.state_dict().items() if name not in frozen}


def load_state(head: Head, learned: Mapping[str, Tensor]) -> None:
    """Load the state that `state` returned."""
    head.load_state_dict({**head.state_dict(), **learned})


def _adapters(head: Head, rank: int) -> LoraModel:
    """Replace the backbone's linear layers by adapters; every other weight of the model is frozen."""
    from peft import LoraConfig, LoraModel
    from transformers.pytorch_utils import Conv1D

    head.model.requires_grad_(False)
    trunk: Any = head.model.base_model
    transposed = any(isinstance(module, Conv1D) for module in trunk.modules())  # GPT-2 uses Conv1D
    settings = LoraConfig(r=rank, lora_alpha=SCALE * rank, target_modules="all-linear", fan_in_fan_out=transposed)
    return LoraModel(trunk, settings, "default")


def _hold_no_activations(head: Head) -> None:
    if not head.model.supports_gradient_checkpointing:
        raise must("gradient_checkpointing", "false for a model that does not have it", type(head.model).__name__)
    head.model.activation_checkpointing_enable()
