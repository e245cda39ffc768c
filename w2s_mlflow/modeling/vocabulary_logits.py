"""Vocabulary logits at selected token positions, computed by the model's own forward pass.

A model may transform hidden states before its output layer (BERT), or scale or cap the logits after it (Granite, Cohere, Gemma
2). Therefore no function here applies the output layer itself. To save time and memory, the backbone's hidden states are
reduced to the selected positions before the rest of the forward pass, as the argument `logits_to_keep` of transformers does for
the same positions of all rows. `separable` checks once per model whether this gives the model's own logits.

Shape legend: R token rows, L tokens of a row, M selected tokens, V vocabulary entries.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from w2s_mlflow.modeling import probing

TOLERANCE = 1e-4
"""Largest relative difference between two computations of the same logits that counts as rounding."""


class _NotReplacedError(RuntimeError):
    """The forward pass of a model did not call its backbone exactly once."""


def at(model: PreTrainedModel, inputs: Mapping[str, Any], selected_RL: Tensor, *, split: bool, exact: bool = False) -> Tensor:
    """Return the logits at the selected positions, row by row, (M, V), in float32.

    Args:
        inputs: keyword arguments of the model's forward pass, with `input_ids`.
        split: whether to reduce the hidden states to the selected positions, which requires that the model is `separable`.
        exact: whether to compute everything after the backbone in float32 even where autocast is on (without `split`, the
            backbone as well). A bfloat16 number has 8 significant bits: logits of different tokens would often be rounded to
            the same number.
    """
    device = inputs["input_ids"].device.type
    precision = torch.autocast(device, enabled=False) if exact else contextlib.nullcontext()
    if not split:
        with precision:
            logits_RLV: Tensor = model(**inputs).logits
        return logits_RLV[selected_RL].float()
    output = model.base_model(**inputs)
    hidden_MD: Tensor = output.last_hidden_state[selected_RL]
    if exact:
        hidden_MD = hidden_MD.float()
    ids_M = inputs["input_ids"][selected_RL]
    rest = {"input_ids": ids_M[None], "attention_mask": torch.ones_like(ids_M)[None]}
    reduced = type(output)(**{**output, "last_hidden_state": hidden_MD[None]})
    with precision, _returning(model.base_model, reduced):
        logits_1MV: Tensor = model(**rest).logits
    return logits_1MV[0].float()


def separable(model: PreTrainedModel) -> bool:
    """Return whether `at` gives the model's own logits with `split`, tested on one short row with dropout off."""

    def difference() -> float:
        inputs = probing.row(model)
        selected_RL = inputs["attention_mask"].bool()
        selected_RL[:, 1] = False
        own_MV, split_MV = (at(model, inputs, selected_RL, split=split) for split in (False, True))
        if own_MV.shape != split_MV.shape:
            return float("inf")
        return ((own_MV - split_MV).abs().max() / own_MV.abs().max().clamp(min=1e-12)).item()

    try:
        return probing.quietly(model, difference) < TOLERANCE
    except Exception:  # the forward pass of a foreign model may raise anything if its backbone is replaced
        return False


@contextlib.contextmanager
def _returning(backbone: nn.Module, output: object) -> Iterator[None]:
    """Context manager within which the backbone returns `output` without computing anything.

    Raises _NotReplacedError unless the backbone is called exactly once, because the logits then do not come from `output`.
    """
    calls = 0

    def forward(*args: object, **kwargs: object) -> object:
        nonlocal calls
        calls += 1
        return output

    own = vars(backbone).get("forward")
    backbone.forward = forward
    try:
        yield
    finally:
        del backbone.forward
        if own is not None:
            backbone.forward = own
    if calls != 1:
        raise _NotReplacedError(f"the backbone was called {calls} times")
