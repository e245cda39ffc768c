"""Heads for next-token prediction and masked language modelling, for pretraining and generative finetuning.

Shapes are named as in heads.py. M is the number of scored tokens: those whose predictions enter the loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from w2s_mlflow.distributed import process_group
from w2s_mlflow.exceptions import ConfigError, ModelError, must
from w2s_mlflow.modeling import probing
from w2s_mlflow.modeling.heads import INPUTS, Head, LanguageModelHead, causal
from w2s_mlflow.modeling.token_rows import NO_TARGET, Batch, Encoded, packed
from w2s_mlflow.modeling.tokenization import SEPARATOR, Texts
from w2s_mlflow.records import Example

HIDDEN = 0.15
"""Share of tokens that a masked language model predicts (Devlin et al. 2018, section 3.1)."""
MASKED, REPLACED = 0.8, 0.1
"""Shares of the predicted tokens that are replaced by the mask token and by a random token; the rest stay unchanged."""


class Language(LanguageModelHead):
    """Head for next-token prediction.

    If an example has a candidate answer, only the candidate's tokens are scored, otherwise the tokens of the whole text.
    """

    def encode(self, examples: Sequence[Example]) -> Encoded:
        """Tokenise each example as one text. A long text is truncated at its end."""
        data = self.reader.read([(SEPARATOR.join(example.segments + example.candidates),) for example in examples])
        starts = np.ones(len(examples), dtype=np.int64)
        continued = [index for index, example in enumerate(examples) if example.candidates]
        prompts = [(SEPARATOR.join(examples[index].segments),) for index in continued]
        starts[continued] = self.reader.read(prompts, closed=False).lengths_R
        return replace(data, scored_from_R=starts)

    def forward(self, batch: Batch) -> Tensor:
        """Return the model's logits for the M scored tokens, (M, V), each row at the position of the preceding token."""
        before_scored_RL = functional.pad(self._scored(batch), (0, 1))
        return self.logits_MV(batch, before_scored_RL)

    def targets(self, batch: Batch) -> Tensor:
        """Return the ids of the scored tokens, (M,)."""
        return batch["input_ids"][:, 1:][self._scored(batch)]

    def _scored(self, batch: Batch) -> Tensor:
        columns = torch.arange(1, batch["input_ids"].shape[1], device=batch["input_ids"].device)
        return (columns >= batch["scored_from"][:, None]) & batch["attention_mask"][:, 1:].bool()


class Packed(Language):
    """Head for next-token prediction in packed rows: texts are concatenated and cut into rows that need almost no padding."""

    def pack(self, rows: Sequence[Texts], length: int, random: np.random.Generator) -> Encoded:
        """Tokenise the texts and pack them into rows of at most `length` tokens, with special tokens between texts.

        The argument `random` is unused: only `Masked.pack` draws random numbers.
        """
        data = packed(self.reader.read([(SEPARATOR.join(texts),) for texts in rows]), length)
        return replace(data, scored_from_R=np.ones(len(data), dtype=np.int64))


class Masked(Head):
    """Head for masked language modelling (Devlin et al. 2018) in packed rows (see `Packed`)."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, max_length: int | None = None) -> None:
        super().__init__(model, tokenizer, max_length)
        if tokenizer.mask_token_id is None:
            raise ConfigError(
                f"masked language modelling needs a mask token, but the tokenizer of {type(model).__name__} has none"
            )
        if model.get_output_embeddings() is None:  # type: ignore[no-untyped-call]
            tokens, hidden = model.get_input_embeddings().embedding_dim, probing.width(model)
            if tokens != hidden:
                raise ModelError(
                    f"masked language modelling needs an output layer, but {type(model).__name__} has none, and its token "
                    f"embeddings, of width {tokens}, cannot replace it after hidden states of width {hidden}"
                )

    def pack(self, rows: Sequence[Texts], length: int, random: np.random.Generator) -> Encoded:
        """Tokenise the texts and pack them into rows of at most `length` tokens.

        The tokens to predict are sampled here, once for all epochs.
        """
        data = packed(self.reader.read(rows), length)
        flat, targets = data.flat.copy(), np.full(len(data.flat), NO_TARGET, dtype=np.int64)
        is_text = ~np.isin(flat, self.tokenizer.all_special_ids)
        for start, tokens in zip(data.offsets_R, data.lengths_R, strict=True):
            candidates = start + np.flatnonzero(is_text[start : start + tokens])
            hidden = random.permutation(candidates)[: max(1, round(HIDDEN * len(candidates)))]
            targets[hidden] = flat[hidden]
        hidden = np.flatnonzero(targets != NO_TARGET)
        fate = random.random(len(hidden))
        replaced = hidden[(fate >= MASKED) & (fate < MASKED + REPLACED)]
        flat[hidden[fate < MASKED]] = self.tokenizer.mask_token_id
        flat[replaced] = random.integers(len(self.tokenizer), size=len(replaced))
        return replace(data, flat=flat, targets=targets)

    def forward(self, batch: Batch) -> Tensor:
        """Return the vocabulary logits for the M tokens to predict, (M, V).

        If the model has no output layer, its input embeddings are used as the output layer.
        """
        is_target_RL = batch["targets"] != NO_TARGET
        if self.model.get_output_embeddings() is None:  # type: ignore[no-untyped-call]
            embedding = self.model.get_input_embeddings()
            assert isinstance(embedding, nn.Embedding)
            return functional.linear(self.hidden_RLD(batch)[is_target_RL], embedding.weight).float()
        inputs = {name: batch[name] for name in INPUTS if name in batch}
        logits_MV: Tensor = self.model(**inputs).logits[is_target_RL]
        return logits_MV.float()

    def targets(self, batch: Batch) -> Tensor:
        """Return the ids of the original tokens at the positions to predict, (M,)."""
        return batch["targets"][batch["targets"] != NO_TARGET]


def head_for(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Packed | Masked:
    """Return the head for the pretraining objective of `model`.

    The objective is next-token prediction for a causal model and masked language modelling for any other model.

    Raises:
        ConfigError: the model is causal and has no output layer, or it is not causal and its tokenizer has no mask token.
    """
    if not causal(model):
        return Masked(model, tokenizer)
    return Packed(model, tokenizer)


def loss(logits_MV: Tensor, tokens_M: Tensor, progress: float) -> Tensor:
    """Return a scalar: the mean cross-entropy over the scored tokens, in nats. `progress` is unused."""
    return functional.cross_entropy(logits_MV, tokens_M)


def mean_loss(head: Head, data: Encoded, batch_size: int = 256) -> float:
    """Return the mean loss in nats over all scored tokens of `data`, with dropout off.

    The exponential of this loss is the perplexity. In a distributed launch each rank computes its share of the rows.
    """
    total, tokens, device = 0.0, 0, next(head.parameters()).device
    training, group = head.training, process_group.joined()
    rows = group.share(np.arange(len(data)))
    head.eval()
    with torch.inference_mode():
        for start in range(0, len(rows), batch_size):
            batch = data.batch(rows[start : start + batch_size])
            batch = {name: tensor.to(device) for name, tensor in batch.items()}
            targets_M = head.targets(batch)
            total += functional.cross_entropy(head(batch), targets_M, reduction="sum").item()
            tokens += len(targets_M)
    head.train(training)
    totals = group.total(torch.tensor([total, tokens], dtype=torch.float64, device=device))
    return float(totals[0] / totals[1])


def block_length(head: Head, length: int | None, default: int) -> int:
    """Return the number of tokens per packed row: `length` if given, else the lower of `default` and the model's limit.

    Raises ConfigError if `length` is below 2 or above the model's limit.
    """
    limit = head.reader.limit
    if length is not None and (length < 2 or (limit is not None and length > limit)):
        raise must("block", "at least 2" if limit is None else f"in [2, {limit}] for this model", length)
    return length or min(default, limit or default)
