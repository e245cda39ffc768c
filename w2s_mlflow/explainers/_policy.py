"""Policy over evidence spans: it scores spans by the model's hidden states and samples them without replacement, in order.

Samples follow the Plackett-Luce model: the next span is drawn from the softmax over the scores of the remaining spans. Shape
legend: N questions, P spans, K samples per question, S spans per sample, R token rows, L tokens, D hidden units, H policy
units. Open spans are those that may still be drawn.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from w2s_mlflow import streams
from w2s_mlflow.explainers._token_spans import NOWHERE
from w2s_mlflow.modeling.heads import Classification, Head, LMChoice, Reward, pooled
from w2s_mlflow.modeling.tokenization import Batch

UNITS = 64
SCALE = 50.0
"""Factor on the scores; without it, a policy that starts at 0 would learn too slowly at the backbone's learning rate."""
LOW = -1e9
"""Score of a span that cannot be drawn; finite, so that a question without spans has a zero gradient, not NaN."""


class Policy(nn.Module):
    """Policy network: score = SCALE v . tanh(A h_span + B h_question + C w_decision). Initially v = 0: all spans score 0."""

    def __init__(self, width: int, seed: int) -> None:
        """Initialise the weights from a separate random stream; the global random state is unchanged.

        Args:
            width: D, the hidden size of the model.
        """
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(streams.integer(seed, streams.POLICY_WEIGHTS))
            self.piece, self.question, self.decision = (nn.Linear(width, UNITS) for _ in range(3))
            self.score = nn.Linear(UNITS, 1, bias=False)
        nn.init.zeros_(self.score.weight)

    def forward(self, piece_NPD: Tensor, question_ND: Tensor, decision_ND: Tensor) -> Tensor:
        """Return the scores of each question's spans given its decision, (N, P)."""
        about_NH = self.question(question_ND) + self.decision(decision_ND)
        scores_NP1: Tensor = self.score(torch.tanh(self.piece(piece_NPD) + about_NH.unsqueeze(1)))
        return SCALE * scores_NP1.squeeze(-1)


def scores(
    head: Head, policy: Policy, batch: Batch, piece_RL: Tensor, decisions_N: Tensor, pieces: int
) -> tuple[Tensor, Tensor]:
    """Return (scores_NP, read_NP) of a batch: the policy's span scores given the decisions, and which spans the model reads.

    Args:
        piece_RL: the span of each token, or NOWHERE.
        pieces: P, at least the largest number of spans in a question.
    """
    hidden_RLD = head.hidden_RLD(batch).float()
    piece_NPD, read_NP = _means(hidden_RLD, piece_RL, len(decisions_N), pieces)
    pooling = head.pooling if isinstance(head, Classification) else "last"
    question_RD = pooled(hidden_RLD, batch["attention_mask"], pooling)
    question_ND = question_RD.view(len(decisions_N), -1, question_RD.shape[-1]).mean(dim=1)
    return policy(piece_NPD, question_ND, _decision_ND(head, batch, decisions_N)), read_NP


def _means(hidden_RLD: Tensor, piece_RL: Tensor, questions: int, pieces: int) -> tuple[Tensor, Tensor]:
    """Return the mean hidden state of each span's tokens over all rows of its question, and whether the span has any token."""
    of_NTP = nn.functional.one_hot(piece_RL.reshape(questions, -1) - NOWHERE, pieces + 1)[..., 1:].to(hidden_RLD.dtype)
    count_NP = of_NTP.sum(dim=1)
    sum_NPD = torch.einsum("ntp,ntd->npd", of_NTP, hidden_RLD.reshape(questions, -1, hidden_RLD.shape[-1]))
    return sum_NPD / count_NP.clamp(min=1).unsqueeze(-1), count_NP > 0


def _decision_ND(head: Head, batch: Batch, decisions_N: Tensor) -> Tensor:
    """Return the head's weight vector of each question's decision, (N, D)."""
    if isinstance(head, LMChoice):
        words_N = batch["candidates"].gather(1, decisions_N.unsqueeze(1)).squeeze(1)
        words_VD: Tensor = head.unembedding().weight  # type: ignore[assignment]
        return words_VD[words_N]
    assert isinstance(head, Classification)
    if isinstance(head, Reward):
        return head.linear.weight * (1 - 2 * decisions_N).unsqueeze(1)
    return head.linear.weight[decisions_N]


def draw(scores_NP: Tensor, open_NP: Tensor, draws: int, size: int, random: torch.Generator) -> Tensor:
    """Return K ordered samples of S spans per question, (N, K, S); NOWHERE where a question has no more open spans.

    The spans with the S highest scores plus Gumbel noise, in descending order, are such a sample (Yellott 1977).
    """
    shape = (len(scores_NP), draws, scores_NP.shape[1])
    noise_NKP = -torch.empty(shape, device="cpu").exponential_(generator=random).log().to(scores_NP.device)
    return best(scores_NP.detach().unsqueeze(1) + noise_NKP, open_NP.unsqueeze(1).expand(shape), size)


def best(scores_NKP: Tensor, open_NKP: Tensor, size: int) -> Tensor:
    """Return the S highest-scoring open spans in descending order, ties by position; NOWHERE if there are fewer."""
    sorted_NKP, order_NKP = scores_NKP.masked_fill(~open_NKP, -torch.inf).sort(dim=-1, descending=True, stable=True)
    return order_NKP.masked_fill(sorted_NKP == -torch.inf, NOWHERE)[..., :size]


def log_probability(scores_NP: Tensor, open_NP: Tensor, drawn_NKS: Tensor) -> Tensor:
    """Return log p of ordered samples, (N, K): sum over s of score(s) - log sum_{spans left} exp(score) (Plackett-Luce)."""
    shape = (*drawn_NKS.shape[:2], scores_NP.shape[1])
    scores_NKP, left_NKP = scores_NP.unsqueeze(1).expand(shape), open_NP.unsqueeze(1).expand(shape)
    total_NK = torch.zeros(shape[:2], dtype=scores_NP.dtype, device=scores_NP.device)
    for drawn_NK in drawn_NKS.unbind(dim=-1):
        place_NK1 = drawn_NK.clamp(min=0).unsqueeze(-1)
        all_NK = scores_NKP.masked_fill(~left_NKP, LOW).logsumexp(dim=-1)
        step_NK = scores_NKP.gather(-1, place_NK1).squeeze(-1) - all_NK
        total_NK = total_NK + torch.where(drawn_NK == NOWHERE, 0.0, step_NK)
        left_NKP = left_NKP & ~nn.functional.one_hot(place_NK1.squeeze(-1), shape[-1]).bool()
    return total_NK


def advantage(reward_NK: Tensor) -> Tensor:
    """Return each sample's reward minus a baseline independent of it: the mean reward of the question's other K - 1 samples."""
    draws = reward_NK.shape[1]
    return (reward_NK - reward_NK.mean(dim=1, keepdim=True)) * (draws / (draws - 1))


def surrogate(log_p_NK: Tensor, reward_NK: Tensor) -> Tensor:
    """Return a scalar whose gradient is, in expectation, minus the gradient of the mean expected reward (Williams 1992).

    -mean over n, k of (R_nk - mean_{j != k} R_nj) log p_nk. With R = D - b (log p - log p_0), the maximised objective is
    E[D] - b KL(p || p_0), since the expectation of grad log p is zero.
    """
    return -(advantage(reward_NK.detach()) * log_p_NK).mean()


def entropy(scores_NP: Tensor, open_NP: Tensor) -> Tensor:
    """Return the entropy of the policy's first draw, divided by its maximum, (N,): 1 is uniform, 0 is deterministic.

    The value for a question with at most one open span is 1.
    """
    log_p_NP = scores_NP.masked_fill(~open_NP, LOW).log_softmax(dim=-1)
    own_N = -(log_p_NP.exp() * log_p_NP).masked_fill(~open_NP, 0.0).sum(dim=-1)
    count_N = open_NP.sum(dim=-1)
    return torch.where(count_N > 1, own_N / count_N.clamp(min=2).log(), torch.ones_like(own_N))
