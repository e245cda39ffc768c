"""Log probabilities that a causal language model gives to continuations of texts, and the answers that prompts make of them.

Shape legend: Q queries, M scored tokens, V vocabulary entries, N examples, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from w2s_mlflow.exceptions import ConfigError
from w2s_mlflow.modeling import inference
from w2s_mlflow.modeling.heads import Batch, Encoded, LanguageModelHead, causal
from w2s_mlflow.modeling.tokenization import Reader
from w2s_mlflow.records import Example, Floats
from w2s_mlflow.tasks import Prompt, Query


class Continuations(LanguageModelHead):
    """A pretrained language model that computes the log probability of a text's continuation. It has no weights of its own."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, max_length: int | None = None) -> None:
        if not causal(model) or model.get_output_embeddings() is None:  # type: ignore[no-untyped-call]
            raise ConfigError(f"--strong must be a causal language model to answer prompts, got a {type(model).__name__}")
        super().__init__(model, tokenizer, max_length)

    def encode_queries(self, queries: Sequence[Query]) -> Encoded:
        """Tokenise each query as one row. A long text is truncated at its beginning.

        A continuation is truncated at its end, to half of the tokens that the model can read.
        """
        words = {query.continuation: self._continuation(query.continuation) for query in queries}
        limit = self.reader.limit
        longest = max(map(len, words.values()))
        reader = Reader(self.tokenizer, self.model, None if limit is None else limit - longest)
        texts = reader.read([(query.text,) for query in queries], keep_end=True, closed=False)
        rows = [
            np.concatenate([texts.flat[start : start + length], words[query.continuation]])
            for query, start, length in zip(queries, texts.offsets_R, texts.lengths_R, strict=True)
        ]
        lengths_Q = np.array([len(row) for row in rows], dtype=np.int64)
        starts_Q = np.cumsum(lengths_Q) - lengths_Q
        return Encoded(np.concatenate(rows), starts_Q, lengths_Q, 1, texts.pad_id, scored_from_R=texts.lengths_R)

    def forward(self, batch: Batch) -> Tensor:
        """Return the log probability of each row's continuation, (Q, 1)."""
        columns = torch.arange(1, batch["input_ids"].shape[1], device=batch["input_ids"].device)
        scored_QL = (columns >= batch["scored_from"][:, None]) & batch["attention_mask"][:, 1:].bool()
        logits_MV = self.logits_MV(batch, functional.pad(scored_QL, (0, 1)))
        tokens_M = batch["input_ids"][:, 1:][scored_QL]
        log_probabilities_M = logits_MV.log_softmax(dim=-1).gather(1, tokens_M[:, None]).squeeze(1)
        row_M = scored_QL.nonzero()[:, 0]
        totals_Q = log_probabilities_M.new_zeros(len(scored_QL)).index_add(0, row_M, log_probabilities_M)
        return totals_Q[:, None]

    def _continuation(self, words: str) -> list[int]:
        tokens = self.reader.continuation(words)
        if not tokens or self.tokenizer.unk_token_id in tokens:
            raise ConfigError(f"every continuation in a prompt must consist of words that the model knows, got {words!r}")
        return tokens if self.reader.limit is None else tokens[: self.reader.limit // 2]


def probabilities(
    head: Continuations, prompt: Prompt, examples: Sequence[Example], micro_batch: int | None = None, dtype: str = "float32"
) -> Floats:
    """Return the class probabilities that a prompt gives to examples, (N, C). For the other arguments see `inference`."""
    queries = [prompt.queries(example) for example in examples]
    data = head.encode_queries([query for of_example in queries for query in of_example])
    answers_NQ = inference.outputs(head, data, micro_batch, dtype).reshape(len(examples), -1).astype(np.float64)
    scores_NC = np.array([prompt.scores(*row) for row in zip(examples, answers_NQ.tolist(), strict=True)])
    unnormalised_NC = np.exp(scores_NC - scores_NC.max(axis=1, keepdims=True))
    return np.asarray(unnormalised_NC / unnormalised_NC.sum(axis=1, keepdims=True), dtype=np.float32)
