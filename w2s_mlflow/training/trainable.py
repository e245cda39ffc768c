"""Selection of trainable parameters (all, LoRA adapters, or only the linear layer), and gradient checkpointing."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

from w2s_mlflow.exceptions import ModelError, first_line, must
from w2s_mlflow.modeling.heads import Head

if TYPE_CHECKING:
    from peft import LoraModel

SCALE = 2
"""LoRA scaling factor, alpha / rank."""


@contextlib.contextmanager
def learning(head: Head, *, lora: int | None, freeze: str | None, gradient_checkpointing: bool) -> Iterator[None]:
    """Context manager that makes only the selected parameters trainable.

    On exit the adapters are merged into the model, and all weights are made trainable again.

    Args:
        lora: rank of the LoRA adapters on all linear layers of the backbone. They are initialised from the current random state
            and trained together with the weights outside `head.model`. If None, no adapters are added.
        freeze: if "backbone", only the weights outside `head.model` are trained. If None, nothing is frozen.
        gradient_checkpointing: whether to recompute activations in the backward pass instead of storing them.

    Raises:
        ConfigError: the model does not support gradient checkpointing.
        ModelError: PEFT has no adapters for the model's layers.
    """
    adapters = _adapters(head, lora) if lora else None
    if freeze == "backbone":
        head.model.requires_grad_(False)
    if gradient_checkpointing:
        _enable_gradient_checkpointing(head)
    yield
    if gradient_checkpointing:
        head.model.activation_checkpointing_disable()  # type: ignore[no-untyped-call]
        head.model.disable_input_require_grads()  # type: ignore[no-untyped-call]
    if adapters is not None:
        adapters.merge_and_unload(progressbar=False)
    head.requires_grad_(True)


def state(head: Head) -> dict[str, Tensor]:
    """Return the head's state dict without the frozen weights, which training does not change."""
    frozen = {name for name, weight in head.named_parameters(remove_duplicate=False) if not weight.requires_grad}
    return {name: tensor for name, tensor in head.state_dict().items() if name not in frozen}


def load_state(head: Head, learned: Mapping[str, Tensor]) -> None:
    """Load a state dict returned by `state` into the head. Frozen weights stay unchanged."""
    head.load_state_dict({**head.state_dict(), **learned})


def _adapters(head: Head, rank: int) -> LoraModel:
    """Add a LoRA adapter to each linear layer of the backbone, and freeze all other weights of the model."""
    from peft import LoraConfig, LoraModel
    from transformers.pytorch_utils import Conv1D

    head.model.requires_grad_(False)
    backbone: Any = head.model.base_model
    transposed = any(isinstance(module, Conv1D) for module in backbone.modules())  # GPT-2 uses Conv1D instead of Linear
    settings = LoraConfig(r=rank, lora_alpha=SCALE * rank, target_modules="all-linear", fan_in_fan_out=transposed)
    try:
        return LoraModel(backbone, settings, "default")
    except ValueError as error:  # for instance, PEFT has no adapters for the layers of Mamba
        raise ModelError(f"--lora cannot be used with {type(backbone).__name__}: {first_line(error)}") from error


def _enable_gradient_checkpointing(head: Head) -> None:
    if not head.model.supports_gradient_checkpointing:
        raise must("gradient_checkpointing", "used only with a model that supports it", type(head.model).__name__)
    head.model.activation_checkpointing_enable()
