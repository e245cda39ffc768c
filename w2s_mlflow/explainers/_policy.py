"""Policy over evidence spans: a network that scores spans from the model's hidden states, and its policy gradient.

Shape legend: N questions, P spans, K samples per question, R token rows, L tokens, D hidden units, H policy units.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from w2s_mlflow import streams
from w2s_mlflow.explainers._token_spans import NOWHERE
from w2s_mlflow.modeling.heads import Classification, Head, LMChoice, Reward, pooled
from w2s_mlflow.modeling.token_rows import Batch

UNITS = 64
SCALE = 50.0
"""Factor by which scores are multiplied. Without it, the policy would learn too slowly at the model's learning rate, because
all scores are 0 initially."""


class Policy(nn.Module):
    """Policy network: score = SCALE v . tanh(A h_span + B h_question + C w_decision).

    h_span and h_question are hidden states of the model, and w_decision is the head's weight vector for the decided class.
    Initially v = 0, so all spans have the score 0.
    """

    def __init__(self, width: int, seed: int) -> None:
        """Initialise the weights from a separate random stream, without changing the global random state.

        Args:
            width: D, the hidden size of the model.
        """
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(streams.integer(seed, streams.POLICY_WEIGHTS))
            self.span, self.question, self.decision = (nn.Linear(width, UNITS) for _ in range(3))
            self.score = nn.Linear(UNITS, 1, bias=False)
        nn.init.zeros_(self.score.weight)

    def forward(self, span_NPD: Tensor, question_ND: Tensor, decision_ND: Tensor) -> Tensor:
        """Return the scores of all spans, of shape (N, P), given the decision on each question."""
        context_NH = self.question(question_ND) + self.decision(decision_ND)
        scores_NP1: Tensor = self.score(torch.tanh(self.span(span_NPD) + context_NH.unsqueeze(1)))
        return SCALE * scores_NP1.squeeze(-1)


def scores(head: Head, policy: Policy, batch: Batch, span_RL: Tensor, decisions_N: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Return (scores_NP, read_NP) of a batch: the policy's scores given the decisions, and whether the model reads each span.

    Args:
        span_RL: the span of each token, or NOWHERE.
        width: P, at least the largest number of spans in a question.
    """
    hidden_RLD = head.hidden_RLD(batch).float()
    span_NPD, read_NP = _means(hidden_RLD, span_RL, len(decisions_N), width)
    pooling = head.pooling if isinstance(head, Classification) else "last"
    question_RD = pooled(hidden_RLD, batch["attention_mask"], pooling)
    question_ND = question_RD.view(len(decisions_N), -1, question_RD.shape[-1]).mean(dim=1)
    return policy(span_NPD, question_ND, _decision_ND(head, batch, decisions_N)), read_NP


def _means(hidden_RLD: Tensor, span_RL: Tensor, questions: int, width: int) -> tuple[Tensor, Tensor]:
    """Return the mean hidden state of each span, over its tokens in all rows of the question, and whether it has any tokens."""
    in_span_NTP = nn.functional.one_hot(span_RL.reshape(questions, -1) - NOWHERE, width + 1)[..., 1:].to(hidden_RLD.dtype)
    count_NP = in_span_NTP.sum(dim=1)
    sum_NPD = torch.einsum("ntp,ntd->npd", in_span_NTP, hidden_RLD.reshape(questions, -1, hidden_RLD.shape[-1]))
    return sum_NPD / count_NP.clamp(min=1).unsqueeze(-1), count_NP > 0


def _decision_ND(head: Head, batch: Batch, decisions_N: Tensor) -> Tensor:
    """Return the head's weight vector for the class in `decisions_N` of each question, (N, D)."""
    if isinstance(head, LMChoice):
        tokens_N = batch["candidates"].gather(1, decisions_N.unsqueeze(1)).squeeze(1)
        vectors_VD: Tensor = head.unembedding().weight  # type: ignore[assignment]
        return vectors_VD[tokens_N]
    assert isinstance(head, Classification)
    if isinstance(head, Reward):
        return head.linear.weight * (1 - 2 * decisions_N).unsqueeze(1)
    return head.linear.weight[decisions_N]


def advantage(reward_NK: Tensor) -> Tensor:
    """Return the reward of each sample minus its baseline, the mean reward of the question's other K - 1 samples, (N, K)."""
    draws = reward_NK.shape[1]
    return (reward_NK - reward_NK.mean(dim=1, keepdim=True)) * (draws / (draws - 1))


def surrogate(log_p_NK: Tensor, reward_NK: Tensor) -> Tensor:
    """Return a scalar whose gradient is, in expectation, minus the gradient of the mean expected reward (Williams 1992).

    The scalar is -mean over n, k of (R_nk - mean_{j != k} R_nj) log p_nk. With R = D - b (log p - log p_0), where b is the
    option `kl`, minimising the scalar maximises E[D] - b KL(p || p_0), because the expectation of grad log p is zero.
    """
    return -(advantage(reward_NK.detach()) * log_p_NK).mean()
