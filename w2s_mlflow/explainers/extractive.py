"""Extractive evidence: k spans of a question's own text (data/spans.py), for every head of modeling/heads.py.

Spans are chosen by one of three choosers: `policy` samples them from a network over the model's hidden states (_policy.py);
`gradient` takes the spans whose tokens support the decision most (modeling/attribution.py); `random` samples uniformly. A span
that either side has shown is not shown again. Shape legend: N questions, P spans, S chosen spans.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from w2s_mlflow.data import spans
from w2s_mlflow.explainers import Explainer, _policy
from w2s_mlflow.explainers._policy import Policy, draw, entropy, log_probability, scores, surrogate
from w2s_mlflow.explainers._token_spans import NOWHERE, EncodedQuestions, read
from w2s_mlflow.modeling import attribution, token_batches
from w2s_mlflow.modeling.heads import Head
from w2s_mlflow.records import Example, Explanation, Ints

__all__ = ["CHOOSERS", "DebaterModel", "EncodedQuestions", "Policy", "explained", "explainer", "read"]
__all__ += ["draw", "entropy", "log_probability", "scores", "surrogate"]

CHOOSERS = ("policy", "gradient", "random")


@dataclass(frozen=True)
class DebaterModel:
    """Model of one side of a debate: a trained head, its decisions on the questions, and its policy if it has one.

    Attributes:
        micro_batch: limits the tokens of a forward pass to those of this many of the longest questions, in addition to the
            limit token_batches.BUDGET; None: that limit only.
    """

    head: Head
    reading: EncodedQuestions
    decisions_N: Ints
    policy: Policy | None = None
    micro_batch: int | None = None


def explainer(chooser: str, mind: DebaterModel, size: int, random: torch.Generator) -> Explainer:
    """Return a side's explainer, which shows `size` spans per round.

    Args:
        chooser: one of CHOOSERS; `policy` requires `mind.policy`.
        random: generator from which `policy` and `random` sample, in every round.
    """
    score = {"policy": _by_policy, "gradient": _by_gradient, "random": _at_random}[chooser]
    found: list[tuple[Tensor, Tensor]] = []

    def explain(taken: Sequence[Collection[int]]) -> list[Explanation]:
        if not found:
            found.append(score(mind))
        scores_NP, read_NP = found[0]
        open_NP = read_NP & ~_marked(taken, read_NP.shape[1])
        if chooser == "gradient":
            drawn_NS = _policy.best(scores_NP.unsqueeze(1), open_NP.unsqueeze(1), size).squeeze(1)
        else:
            drawn_NS = _policy.draw(scores_NP, open_NP, 1, size, random).squeeze(1)
        return explained(mind.reading.questions, drawn_NS)

    return explain


def explained(questions: Sequence[Example], drawn_NS: Tensor) -> list[Explanation]:
    """Return one explanation per question, which quotes its chosen spans in the order given."""
    chosen = [tuple(piece for piece in row if piece != NOWHERE) for row in drawn_NS.tolist()]
    return [Explanation(spans.quoted(question, own), own) for question, own in zip(questions, chosen, strict=True)]


def readable(reading: EncodedQuestions) -> Tensor:
    """Return which spans of each question the model reads, (N, P); truncation may remove some."""
    width, rows = int(reading.count_N.max(initial=1)), reading.data.rows_per_example
    example_T = np.repeat(np.arange(len(reading.data.lengths_R)) // rows, reading.data.lengths_R)
    known_T = reading.piece_T != NOWHERE
    read_NP = torch.zeros(len(reading.questions), max(width, 1), dtype=torch.bool)
    read_NP[example_T[known_T], reading.piece_T[known_T]] = True
    return read_NP


def _at_random(mind: DebaterModel) -> tuple[Tensor, Tensor]:
    read_NP = readable(mind.reading)
    return torch.zeros(read_NP.shape), read_NP


def _by_gradient(mind: DebaterModel) -> tuple[Tensor, Tensor]:
    """Score each span by gradient times input for the decision, summed over its tokens."""
    read_NP, reading = readable(mind.reading), mind.reading
    score_T = attribution.scores(mind.head, reading.data, mind.decisions_N, mind.micro_batch)
    example_T = np.repeat(np.arange(len(reading.data.lengths_R)) // reading.data.rows_per_example, reading.data.lengths_R)
    known_T = reading.piece_T != NOWHERE
    scores_NP = np.zeros(read_NP.shape, dtype=np.float32)
    np.add.at(scores_NP, (example_T[known_T], reading.piece_T[known_T]), score_T[known_T])
    return torch.from_numpy(scores_NP), read_NP


def _by_policy(mind: DebaterModel) -> tuple[Tensor, Tensor]:
    assert mind.policy is not None, "the chooser policy needs one"
    reading, read_NP = mind.reading, readable(mind.reading)
    scores_NP = torch.zeros(read_NP.shape)
    batches = token_batches.by_length(reading.data.lengths_N(), mind.micro_batch, rows=reading.data.rows_per_example)
    device, training = next(mind.head.parameters()).device, mind.head.training
    mind.head.eval()
    with torch.inference_mode():
        for rows in batches:
            batch, piece_RL = reading.batch(rows, device)
            decisions = torch.from_numpy(mind.decisions_N[rows]).to(device)
            found_NP, _ = _policy.scores(mind.head, mind.policy, batch, piece_RL, decisions, read_NP.shape[1])
            scores_NP[rows] = found_NP.cpu()
    mind.head.train(training)
    return scores_NP, read_NP


def _marked(taken: Sequence[Collection[int]], width: int) -> Tensor:
    """Return which spans have already been shown, (N, P)."""
    marked_NP = torch.zeros(len(taken), width, dtype=torch.bool)
    for row, own in enumerate(taken):
        marked_NP[row, list(own)] = True
    return marked_NP
