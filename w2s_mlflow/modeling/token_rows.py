"""Tokenised examples, and the batches and packed rows made from them.

Shape legend: N examples, R token rows (R is 2N for the head `reward` and N for all others), K rows per example, L tokens of a
row.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from w2s_mlflow.records import Floats, Ints

Batch = dict[str, Tensor]
NO_TARGET = -1
"""Value in `Encoded.targets` for tokens that are not prediction targets."""


@dataclass(frozen=True)
class Encoded:
    """Tokenised examples. All token rows are concatenated in one array, so that batches are gathered without Python loops."""

    flat: Ints
    """Token ids of all R rows, concatenated into one array, (sum(lengths_R),)."""
    offsets_R: Ints
    lengths_R: Ints
    rows_per_example: int
    pad_id: int
    types: Ints | None = None
    """Token type of each token, in the shape of `flat`. Tokens of the second text of a pair have type 1. None if the model has
    no token types."""
    candidates_NC: Ints | None = None
    """For the head `lm_choice`: the token id of each candidate answer."""
    scored_from_R: Ints | None = None
    """For next-token prediction: the index of the first scored token of each row."""
    targets: Ints | None = None
    """For masked language modelling: the original token id at each position to predict, and NO_TARGET at all other positions.
    The array has the shape of `flat`."""
    pooled_RD: Floats | None = None
    """For `classification` and `reward` with a frozen backbone: the backbone's pooled output for each row."""

    def __len__(self) -> int:
        return len(self.lengths_R) // self.rows_per_example

    def lengths_N(self, examples: Ints | None = None) -> Ints:
        """Return the length of each given example's longest token row, (N,).

        If `examples` is None, all examples are used.
        """
        lengths_NK = self.lengths_R.reshape(-1, self.rows_per_example)
        longest_N: Ints = (lengths_NK if examples is None else lengths_NK[examples]).max(axis=1)
        return longest_N

    def tokens(self, examples: Ints) -> int:
        """Return the total number of tokens of the given examples."""
        return int(self.lengths_R.reshape(-1, self.rows_per_example)[examples].sum())

    def batch(self, examples: Ints) -> Batch:
        """Return a batch of the given examples: its tensors by name.

        There are always `input_ids` and `attention_mask`, both (R, L), and one more tensor for each optional field that is set.
        Rows are padded on the right to the length of the longest row.
        """
        k = self.rows_per_example
        rows = (examples[:, None] * k + np.arange(k)).reshape(-1)
        columns = np.arange(int(self.lengths_R[rows].max()))
        mask_RL = columns < self.lengths_R[rows, None]
        index_RL = np.minimum(self.offsets_R[rows, None] + columns, len(self.flat) - 1)
        input_ids_RL = np.where(mask_RL, self.flat[index_RL], self.pad_id)
        batch = {"input_ids": torch.from_numpy(input_ids_RL), "attention_mask": torch.from_numpy(mask_RL.astype(np.int64))}
        if self.types is not None:
            batch["token_type_ids"] = torch.from_numpy(np.where(mask_RL, self.types[index_RL], 0))
        if self.candidates_NC is not None:
            batch["candidates"] = torch.from_numpy(self.candidates_NC[examples])
        if self.scored_from_R is not None:
            batch["scored_from"] = torch.from_numpy(self.scored_from_R[rows])
        if self.targets is not None:
            batch["targets"] = torch.from_numpy(np.where(mask_RL, self.targets[index_RL], NO_TARGET))
        if self.pooled_RD is not None:
            batch["pooled"] = torch.from_numpy(self.pooled_RD[rows])
        return batch


def packed(data: Encoded, length: int) -> Encoded:
    """Return all tokens of `data`, cut into new rows of at most `length` tokens.

    The lengths of the new rows differ by at most one. They are cut without regard to the ends of texts, so a
    text may span several rows.
    """
    tokens = len(data.flat)
    ends_R = np.linspace(0, tokens, -(-tokens // length) + 1).round().astype(np.int64)
    return Encoded(data.flat, ends_R[:-1], np.diff(ends_R), 1, data.pad_id)
