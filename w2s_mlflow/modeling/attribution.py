"""Gradient-times-input attribution: find the tokens that support a head's answer, and reduce inputs to those tokens.

ERASER calls a part of a text sufficient if that part alone leads to the same answer (DeYoung et al. 2020, section 4.2).
Shapes are named as in heads.py. T is the number of tokens of all rows together, the length of `Encoded.flat`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from w2s_mlflow.exceptions import ModelError
from w2s_mlflow.modeling import token_batches
from w2s_mlflow.modeling.heads import Encoded, Head
from w2s_mlflow.records import Floats, Ints

GAP = " … "
"""Text between two quoted spans that are not adjacent in the original text."""
Mask = NDArray[np.bool_]


def scores(head: Head, data: Encoded, answers_N: Ints, micro_batch: int | None = None) -> Floats:
    """Return the attribution score of each token, (T,), computed as gradient times input (Shrikumar et al. 2017).

    The score is the dot product of the token's embedding with the gradient of the answer's margin with respect to that
    embedding. The margin of the answer (class) a is logit_a - log sum_{c != a} exp(logit_c).
    """
    scores_T = np.zeros(len(data.flat), dtype=np.float32)
    k, device = data.rows_per_example, next(head.parameters()).device
    training = head.training
    head.eval()
    for examples in token_batches.by_length(data.lengths_N(), micro_batch, rows=k):
        batch = {name: tensor.to(device) for name, tensor in data.batch(examples).items()}
        with torch.enable_grad(), _frozen(head), _embedded(head.model) as embedded:
            margin = _margin(head(batch), torch.from_numpy(answers_N[examples]).to(device)).sum()
            embedding = _only(embedded, head.model)
            (gradient,) = torch.autograd.grad(margin, embedding.vectors)
        products_RL = embedding.in_rows((gradient * embedding.vectors).sum(dim=-1), batch["input_ids"])
        score_RL = products_RL.detach().float().cpu().numpy()
        rows = (examples[:, None] * k + np.arange(k)).reshape(-1)
        mask_RL = np.arange(score_RL.shape[1]) < data.lengths_R[rows, None]
        index_RL = data.offsets_R[rows, None] + np.arange(score_RL.shape[1])
        scores_T[index_RL[mask_RL]] = score_RL[mask_RL]
    head.train(training)
    return scores_T


def _margin(logits_NC: Tensor, answers_N: Tensor) -> Tensor:
    is_answer_NC = nn.functional.one_hot(answers_N, logits_NC.shape[1]).bool()
    return logits_NC[is_answer_NC] - logits_NC.masked_fill(is_answer_NC, -torch.inf).logsumexp(dim=1)


@contextmanager
def _frozen(head: Head) -> Iterator[None]:
    """Context manager that temporarily freezes all weights, so that no gradients are computed for them."""
    learned = [weight for weight in head.parameters() if weight.requires_grad]
    try:
        for weight in learned:
            weight.requires_grad_(False)
        yield
    finally:
        for weight in learned:
            weight.requires_grad_()


class _Embedding(NamedTuple):
    """The token ids that an embedding layer read, and the vectors that it returned for them."""

    ids: Tensor
    vectors: Tensor

    def in_rows(self, scores: Tensor, ids_RL: Tensor) -> Tensor:
        """Return one score per token in the shape (R, L). Some models embed the transposed batch (XLNet)."""
        if self.ids.shape == ids_RL.shape and torch.equal(self.ids, ids_RL):
            return scores
        if self.ids.shape == ids_RL.T.shape and torch.equal(self.ids, ids_RL.T):
            return scores.T
        raise ModelError("gradient attribution needs a model that embeds the tokens of a row in their order")


def _only(embedded: Sequence[_Embedding], model: nn.Module) -> _Embedding:
    if len(embedded) != 1:
        raise ModelError(
            f"gradient attribution needs a model that embeds its tokens once, but {type(model).__name__} embeds them "
            f"{len(embedded)} times"
        )
    return embedded[0]


@contextmanager
def _embedded(model: nn.Module) -> Iterator[list[_Embedding]]:
    """Context manager within which the token embeddings are leaves of the autograd graph, so that they get gradients.

    Each forward pass of the model appends its embeddings to the yielded list.
    """
    embeddings: list[_Embedding] = []

    def keep(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        embeddings.append(_Embedding(inputs[0], output.detach().requires_grad_()))
        return embeddings[-1].vectors.clone()  # a copy, because a model may change it in place (CTRL), but not a leaf

    hook = model.get_input_embeddings().register_forward_hook(keep)  # type: ignore[operator]
    try:
        yield embeddings
    finally:
        hook.remove()


def top_tokens(head: Head, data: Encoded, scores_T: Floats, share: float) -> Mask:
    """Return a mask, (T,), that selects the tokens with the highest scores in each row.

    The fraction `share` of the row's tokens is selected. Their number is rounded up, and of tokens with equal scores the
    earlier ones are selected. Special tokens, except the unknown token, do not count towards the share and are always
    selected.
    """
    tokenizer = head.tokenizer
    special_T = np.isin(data.flat, [id_ for id_ in tokenizer.all_special_ids if id_ != tokenizer.unk_token_id])
    row_T = _rows(data)
    # Within each row, sort text tokens before special tokens, and the tokens of each kind by descending score.
    order = np.lexsort((-scores_T, special_T, row_T))
    rank_T = np.empty(len(order), dtype=np.int64)
    rank_T[order] = np.arange(len(order)) - data.offsets_R[row_T]
    count_R = np.ceil(share * np.bincount(row_T[~special_T], minlength=len(data.lengths_R)))
    selected_T: Mask = special_T | (rank_T < count_R[row_T])
    return selected_T


def select_tokens(data: Encoded, selected_T: Mask) -> Encoded:
    """Return a copy of `data` that has only the selected tokens."""
    lengths_R = np.bincount(_rows(data)[selected_T], minlength=len(data.lengths_R))
    types = None if data.types is None else data.types[selected_T]
    return replace(
        data, flat=data.flat[selected_T], offsets_R=np.cumsum(lengths_R) - lengths_R, lengths_R=lengths_R, types=types
    )


def quotes(head: Head, data: Encoded, selected_T: Mask) -> list[str]:
    """Return the selected tokens of each example as text, with one line per token row."""
    k = data.rows_per_example
    lines = [_quote(head, data, selected_T, row) for row in range(len(data.lengths_R))]
    return ["\n".join(lines[n * k : (n + 1) * k]) for n in range(len(data))]


def _quote(head: Head, data: Encoded, selected_T: Mask, row: int) -> str:
    start, end = data.offsets_R[row], data.offsets_R[row] + data.lengths_R[row]
    indices = start + np.flatnonzero(selected_T[start:end])
    runs: Sequence[Ints] = np.split(indices, np.flatnonzero(np.diff(indices) > 1) + 1)
    spans = (head.tokenizer.decode(data.flat[run], skip_special_tokens=True) for run in runs)
    return GAP.join(text.strip() for text in spans if isinstance(text, str) and text.strip())


def _rows(data: Encoded) -> Ints:
    """Return, for each token, the index of its row, (T,)."""
    return np.repeat(np.arange(len(data.lengths_R)), data.lengths_R)
