"""Heads that turn a model's outputs into class logits: `lm_choice`, `classification` and `reward`.

A head wraps a Hugging Face model: `encode` builds the text of each example and tokenises it once; `forward` turns a batch
into logits_NC, with the last layer computed in float32. Padding is identified by the attention mask, never by token values.
Heads for language modelling are in language_modeling.py. Shape legend: N examples, R token rows (R is 2N for the head
`reward` and N for all others), L tokens of a row, D hidden units, C classes, V vocabulary entries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from w2s_mlflow.exceptions import ConfigError, unknown
from w2s_mlflow.modeling import probing, vocabulary_logits
from w2s_mlflow.modeling.token_rows import Batch, Encoded
from w2s_mlflow.modeling.tokenization import SEPARATOR, Reader
from w2s_mlflow.models import POOLINGS
from w2s_mlflow.records import Example
from w2s_mlflow.tasks import HEADS

__all__ = ["POOLINGS", "Batch", "Encoded", "Head", "build"]

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
"""Names of the tensors in a batch that are passed to the backbone."""


class Head(nn.Module):
    """Base class of heads. Call `encode` once for all examples, then `forward` for each batch."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, max_length: int | None = None) -> None:
        super().__init__()
        self.model = model
        self.tokenizer = tokenizer
        self.reader = Reader(tokenizer, model, max_length)

    def encode(self, examples: Sequence[Example]) -> Encoded:
        """Tokenise the examples. Each subclass defines which text it builds from an example."""
        raise NotImplementedError

    def forward(self, batch: Batch) -> Tensor:
        """Return the class logits, (N, C), of a batch made by `Encoded.batch`."""
        raise NotImplementedError

    def targets(self, batch: Batch) -> Tensor:
        """Return the ids of the tokens to predict in a batch. Only language-modelling heads implement this method."""
        raise NotImplementedError

    def hidden_RLD(self, batch: Batch) -> Tensor:
        """Return the hidden states of the backbone's last layer, (R, L, D)."""
        hidden: Tensor = self.model.base_model(**self._inputs(batch)).last_hidden_state
        return hidden

    def layers_RKD(self, batch: Batch, pooling: str) -> Tensor:
        """Return the hidden states of all K layers, pooled over the tokens of each row, (R, K, D).

        The first of these layers is the embedding layer.
        """
        hidden_states = self.model.base_model(**self._inputs(batch), output_hidden_states=True).hidden_states
        return torch.stack([pooled(hidden_RLD, batch["attention_mask"], pooling) for hidden_RLD in hidden_states], dim=1)

    def _inputs(self, batch: Batch) -> dict[str, Tensor | bool]:
        inputs: dict[str, Tensor | bool] = {name: batch[name] for name in INPUTS if name in batch}
        # The key-value cache is needed only for generation, and is incompatible with gradient checkpointing.
        if hasattr(self.model.config, "use_cache"):
            inputs["use_cache"] = False
        return inputs


class LanguageModelHead(Head):
    """Base class of heads that use the vocabulary logits of a language model."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, max_length: int | None = None) -> None:
        super().__init__(model, tokenizer, max_length)
        self.unembedding()
        self._split = vocabulary_logits.separable(model)

    def logits_MV(self, batch: Batch, selected_RL: Tensor, *, exact: bool = False) -> Tensor:
        """Return the model's own logits at the selected positions, (M, V). For `exact` see `vocabulary_logits.at`."""
        return vocabulary_logits.at(self.model, self._inputs(batch), selected_RL, split=self._split, exact=exact)

    def unembedding(self) -> nn.Module:
        """Return the model's output layer. Raises ConfigError if the model has none."""
        layer: nn.Module | None = self.model.get_output_embeddings()  # type: ignore[no-untyped-call]
        if layer is None:
            raise ConfigError(f"--head lm_choice needs a language model, but {type(self.model).__name__} has no output layer")
        return layer


class LMChoice(LanguageModelHead):
    """Head that scores candidate words as the next token after the text. The paper uses a linear layer instead."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, max_length: int | None = None) -> None:
        if not causal(model):
            raise ConfigError(f"--head lm_choice needs a causal language model, got {type(model).__name__}")
        super().__init__(model, tokenizer, max_length)

    def encode(self, examples: Sequence[Example]) -> Encoded:
        """Tokenise each example as one text without special tokens at its end. A long text is truncated at its beginning."""
        data = self.reader.read([(SEPARATOR.join(example.segments),) for example in examples], keep_end=True, closed=False)
        words = sorted({word for example in examples for word in example.candidates})
        token_of = {word: self._candidate(word) for word in words}
        candidates = [[token_of[word] for word in example.candidates] for example in examples]
        return replace(data, candidates_NC=np.array(candidates, dtype=np.int64))

    def forward(self, batch: Batch) -> Tensor:
        mask_RL = batch["attention_mask"]
        columns = torch.arange(mask_RL.shape[1], device=mask_RL.device)
        is_last_RL = columns == mask_RL.sum(dim=1, keepdim=True) - 1
        return self.logits_MV(batch, is_last_RL, exact=True).gather(1, batch["candidates"])

    def _candidate(self, word: str) -> int:
        tokens = self.reader.continuation(word)
        if len(tokens) != 1 or tokens[0] == self.tokenizer.unk_token_id:
            raise ConfigError(
                f"--head lm_choice needs candidates that are single tokens of the vocabulary, but {word!r} has {len(tokens)} "
                "token(s) or is unknown"
            )
        return tokens[0]


class Classification(Head):
    """Head with a linear layer on the backbone's pooled hidden states, as in the paper."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        classes: int,
        pooling: str | None = None,
        max_length: int | None = None,
    ) -> None:
        super().__init__(model, tokenizer, max_length)
        self.pooling = pooling or ("last" if causal(model) else "mean")
        self.linear = nn.Linear(probing.width(model), classes)

    def encode(self, examples: Sequence[Example]) -> Encoded:
        """Tokenise each example as two texts: its first text, and its other texts joined into one.

        The two texts are encoded as a pair if the tokenizer supports pairs. If they are too long together, the longer one is
        truncated first.
        """
        return encode_texts(self.reader, examples)

    def forward(self, batch: Batch) -> Tensor:
        return output(self.linear, self.pooled_RD(batch))

    def pooled_RD(self, batch: Batch) -> Tensor:
        """Return one pooled vector per row, (R, D).

        With causal attention the default pooling is `last`, because only the last token has attended to the whole text.
        """
        if "pooled" in batch:  # the backbone is frozen, so its outputs were computed in advance
            return batch["pooled"]
        return pooled(self.hidden_RLD(batch), batch["attention_mask"], self.pooling)


class Reward(Classification):
    """Head that computes a scalar reward for each of an example's two responses, A and B.

    The logits are the rewards (r_A, r_B), and their softmax is the Bradley-Terry probability of each response.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        pooling: str | None = None,
        max_length: int | None = None,
    ) -> None:
        super().__init__(model, tokenizer, 1, pooling, max_length)

    def encode(self, examples: Sequence[Example]) -> Encoded:
        """Tokenise each example as two rows, each with the prompt and one response. Long rows are truncated at the beginning.

        The end of each response is kept, because responses to one prompt often begin alike, and because the last token's hidden
        state determines the reward if the pooling is `last`.
        """
        return encode_responses(self.reader, examples)

    def forward(self, batch: Batch) -> Tensor:
        return output(self.linear, self.pooled_RD(batch)).view(-1, 2)


def output(layer: nn.Module, hidden_RD: Tensor) -> Tensor:
    """Return the output of the head's last layer, computed in float32 even where autocast is on.

    A bfloat16 number has 8 significant bits. Logits of different classes would often be rounded to the same number, and a tie
    is decided for the class with the lowest index.
    """
    with torch.autocast(hidden_RD.device.type, enabled=False):
        logits: Tensor = layer(hidden_RD.float())
    return logits


def pooled(hidden_RLD: Tensor, mask_RL: Tensor, pooling: str) -> Tensor:
    """Return one vector per row: the hidden state of the first or last token, or the mean over tokens, ignoring padding.

    Rows must be padded on the right.
    """
    if pooling == "first":
        return hidden_RLD[:, 0]
    if pooling == "last":
        last_R = mask_RL.sum(dim=1) - 1
        return hidden_RLD[torch.arange(len(last_R), device=last_R.device), last_R]
    mask_RL1 = mask_RL.unsqueeze(-1).to(torch.float32)
    return (hidden_RLD * mask_RL1).sum(dim=1) / mask_RL1.sum(dim=1)


def encode_texts(reader: Reader, examples: Sequence[Example]) -> Encoded:
    """Tokenise each example together with its candidates as one row, for the head `classification`."""
    return reader.read([_first_and_rest(example.segments + example.candidates) for example in examples])


def encode_responses(reader: Reader, examples: Sequence[Example]) -> Encoded:
    """Tokenise each example as two rows, each with the prompt and one response, for the head `reward`."""
    rows = [_first_and_rest((SEPARATOR.join(e.segments), response)) for e in examples for response in e.candidates]
    return reader.read(rows, rows_per_example=2, keep_end=True)


def _first_and_rest(texts: Sequence[str]) -> tuple[str, ...]:
    return (texts[0], SEPARATOR.join(texts[1:])) if len(texts) > 1 else (texts[0],)


def causal(model: PreTrainedModel) -> bool:
    """Return whether the model has causal attention: it can generate text, or one of its modules is marked as causal."""
    return model.can_generate() or any(getattr(module, "is_causal", False) is True for module in model.modules())


def build(
    name: str,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    classes: int,
    pooling: str | None = None,
    max_length: int | None = None,
) -> Head:
    """Return a head of the kind `name` for `model`. New weights are drawn from torch's random state, so set a seed first.

    Args:
        pooling: pooling of `classification` and `reward`, one of POOLINGS. None: "last" for a model with causal attention,
            otherwise "mean".
        max_length: maximum number of tokens per row; None: as many as the model can read.
    """
    if pooling is not None and pooling not in POOLINGS:
        raise unknown("--pooling", pooling, POOLINGS)
    if name == "lm_choice":
        return LMChoice(model, tokenizer, max_length)
    if name == "reward":
        return Reward(model, tokenizer, pooling, max_length)
    if name == "classification":
        return Classification(model, tokenizer, classes, pooling, max_length)
    raise unknown("--head", name, HEADS)


def classes_of(head: Head) -> int | None:
    """Return a head's number of classes, or None for `lm_choice`, whose classes are the candidates of each example."""
    if isinstance(head, Reward):
        return 2
    return head.linear.out_features if isinstance(head, Classification) else None
