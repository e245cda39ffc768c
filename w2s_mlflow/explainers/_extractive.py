"""Extractive evidence: spans of a question's own text (data/spans.py), for models with any kind of head.

A span that either side has shown is not shown again. Shape legend: N questions, P spans, S chosen spans, T tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import numpy as np
import torch
from torch import Tensor

from w2s_mlflow.data import spans
from w2s_mlflow.explainers import DebaterModel, DebateSide, Explainer
from w2s_mlflow.explainers._plackett_luce import best, draw
from w2s_mlflow.explainers._token_spans import NOWHERE, EncodedQuestions
from w2s_mlflow.records import Example, Explanation

Scores = Callable[[DebaterModel], Tensor]
"""Function that returns the score of each span, (N, P). The scores of spans that truncation removes are ignored."""
Choice = Callable[[Tensor, Tensor], Tensor]
"""Function that takes `scores_NP` and `open_NP`, and returns the chosen spans, (N, S), padded with NOWHERE. Only spans for
which `open_NP` is true may be chosen."""


def highest(side: DebateSide, score: Scores) -> Explainer:
    """Return an explainer that shows the spans with the highest scores."""
    return _explainer(side, score, lambda scores_NP, open_NP: best(scores_NP, open_NP, side.evidence_spans))


def sampled(side: DebateSide, score: Scores) -> Explainer:
    """Return an explainer that samples spans without replacement, each from the softmax of the remaining spans' scores."""

    def choose(scores_NP: Tensor, open_NP: Tensor) -> Tensor:
        return draw(scores_NP, open_NP, 1, side.evidence_spans, side.random).squeeze(1)

    return _explainer(side, score, choose)


def _explainer(side: DebateSide, score: Scores, choose: Choice) -> Explainer:
    encoded = side.debater.encoded
    computed: list[tuple[Tensor, Tensor]] = []

    def explain(taken: Sequence[Collection[int]]) -> list[Explanation]:
        # Compute scores and readable spans only once, because they are the same in all rounds.
        if not computed:
            computed.append((score(side.debater), readable(encoded)))
        scores_NP, read_NP = computed[0]
        return explained(encoded.questions, choose(scores_NP, read_NP & ~_shown(taken, read_NP.shape[1])))

    return explain


def explained(questions: Sequence[Example], chosen_NS: Tensor) -> list[Explanation]:
    """Return one explanation per question. It quotes the chosen spans of the question."""
    chosen = [tuple(span for span in row if span != NOWHERE) for row in chosen_NS.tolist()]
    return [Explanation(spans.quoted(question, row), row) for question, row in zip(questions, chosen, strict=True)]


def readable(encoded: EncodedQuestions) -> Tensor:
    """Return whether the model reads each span, (N, P). Spans that truncation removes are not read."""
    read_NP = torch.zeros(encoded.shape, dtype=torch.bool)
    example_T, known_T = encoded.example_T(), encoded.span_T != NOWHERE
    read_NP[example_T[known_T], encoded.span_T[known_T]] = True
    return read_NP


def sums(encoded: EncodedQuestions, score_T: np.ndarray) -> Tensor:
    """Return the score of each span, (N, P): the sum of the scores of its tokens."""
    example_T, known_T = encoded.example_T(), encoded.span_T != NOWHERE
    scores_NP = np.zeros(encoded.shape, dtype=np.float32)
    np.add.at(scores_NP, (example_T[known_T], encoded.span_T[known_T]), score_T[known_T])
    return torch.from_numpy(scores_NP)


def _shown(taken: Sequence[Collection[int]], width: int) -> Tensor:
    """Return whether each span has already been shown, (N, P)."""
    shown_NP = torch.zeros(len(taken), width, dtype=torch.bool)
    for row, spans_shown in enumerate(taken):
        shown_NP[row, list(spans_shown)] = True
    return shown_NP
