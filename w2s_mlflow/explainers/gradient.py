"""Spans whose tokens most support the side's decision, as measured by gradient times input."""

from __future__ import annotations

from typing import TYPE_CHECKING

from w2s_mlflow.explainers import SPANS, DebaterModel, DebateSide, Explainer

if TYPE_CHECKING:
    from torch import Tensor

EVIDENCE = SPANS
OPTIONS = ("evidence_spans",)


def make(side: DebateSide) -> Explainer:
    """Return the explainer of one side. Its explanations are deterministic."""
    from w2s_mlflow.explainers import _extractive

    return _extractive.highest(side, _scores)


def _scores(debater: DebaterModel) -> Tensor:
    """Return the score of each span, (N, P): gradient times input for the decision, summed over the span's tokens."""
    from w2s_mlflow.explainers import _extractive
    from w2s_mlflow.modeling import attribution

    score_T = attribution.scores(debater.head, debater.encoded.data, debater.decisions_N, debater.micro_batch)
    return _extractive.sums(debater.encoded, score_T)
