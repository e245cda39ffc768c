"""Run a model on one short row, to learn how it computes without changing it or the random state."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor
from transformers import PreTrainedModel

from w2s_mlflow.exceptions import ModelError, first_line
from w2s_mlflow.modeling.tokenization import table_size

T = TypeVar("T")
TOKENS = 4
"""Number of tokens of the row."""


def row(model: PreTrainedModel) -> dict[str, Tensor]:
    """Return one row of tokens that the model's embedding table has, without padding."""
    ids_1L = torch.arange(1, 1 + TOKENS)[None] % table_size(model)
    return {"input_ids": ids_1L, "attention_mask": torch.ones_like(ids_1L)}


def quietly(model: PreTrainedModel, function: Callable[[], T]) -> T:
    """Call a function that runs the model, with dropout and gradients off, and restore the mode and the random state."""
    training, device = model.training, next(model.parameters()).device
    model.eval()  # type: ignore[no-untyped-call]
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad(), torch.device(device):
            return function()
    finally:
        model.train(training)


def width(model: PreTrainedModel) -> int:
    """Return the width of the backbone's hidden states. It may differ from `hidden_size` in the config (OPT-350m).

    Raises:
        ModelError: the backbone cannot read a row of tokens, or returns no hidden states.
    """
    try:
        hidden_1LD: Tensor = quietly(model, lambda: model.base_model(**row(model)).last_hidden_state)
    except Exception as error:  # the forward pass of a foreign model may raise anything
        raise ModelError(f"{type(model).__name__} cannot read a row of tokens: {first_line(error)}") from error
    return hidden_1LD.shape[-1]
