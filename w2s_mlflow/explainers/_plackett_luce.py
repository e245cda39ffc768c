"""Sample spans from the Plackett-Luce model: each span is drawn from the softmax over the scores of the remaining spans.

Shape legend: N questions, P spans, K samples per question, S spans per sample. Open spans are those that may still be drawn.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from w2s_mlflow.explainers._token_spans import NOWHERE

LOW = -1e9
"""Score of spans that cannot be drawn.

It is finite so that a question without spans has the gradient 0. With a score of minus infinity, the gradient would be NaN.
"""


def draw(scores_NP: Tensor, open_NP: Tensor, draws: int, size: int, random: torch.Generator) -> Tensor:
    """Return K ordered samples of S spans per question, (N, K, S).

    If a question has fewer than S open spans, its samples end in NOWHERE. A sample is drawn by adding Gumbel noise to the
    scores and taking the spans with the S highest sums, in descending order (Yellott 1977).
    """
    shape = (len(scores_NP), draws, scores_NP.shape[1])
    noise_NKP = -torch.empty(shape, device="cpu").exponential_(generator=random).log().to(scores_NP.device)
    return best(scores_NP.detach().unsqueeze(1) + noise_NKP, open_NP.unsqueeze(1).expand(shape), size)


def best(scores_NKP: Tensor, open_NKP: Tensor, size: int) -> Tensor:
    """Return the S spans with the highest scores among those that may still be drawn, in descending order.

    Equal scores are ordered by position. If there are fewer than S open spans, the result ends in NOWHERE. Arguments without
    the dimension K are also accepted.
    """
    sorted_NKP, order_NKP = scores_NKP.masked_fill(~open_NKP, -torch.inf).sort(dim=-1, descending=True, stable=True)
    return order_NKP.masked_fill(sorted_NKP == -torch.inf, NOWHERE)[..., :size]


def log_probability(scores_NP: Tensor, open_NP: Tensor, drawn_NKS: Tensor) -> Tensor:
    """Return the log probability of each ordered sample under the Plackett-Luce model, (N, K).

    It is the sum over the drawn spans of: the span's score - log sum exp(scores of the spans that were still open).
    """
    shape = (*drawn_NKS.shape[:2], scores_NP.shape[1])
    scores_NKP, left_NKP = scores_NP.unsqueeze(1).expand(shape), open_NP.unsqueeze(1).expand(shape)
    total_NK = torch.zeros(shape[:2], dtype=scores_NP.dtype, device=scores_NP.device)
    for drawn_NK in drawn_NKS.unbind(dim=-1):
        index_NK1 = drawn_NK.clamp(min=0).unsqueeze(-1)
        log_sum_NK = scores_NKP.masked_fill(~left_NKP, LOW).logsumexp(dim=-1)
        step_NK = scores_NKP.gather(-1, index_NK1).squeeze(-1) - log_sum_NK
        total_NK = total_NK + torch.where(drawn_NK == NOWHERE, 0.0, step_NK)
        left_NKP = left_NKP & ~nn.functional.one_hot(index_NK1.squeeze(-1), shape[-1]).bool()
    return total_NK


def entropy(scores_NP: Tensor, open_NP: Tensor) -> Tensor:
    """Return the normalised entropy of the first span drawn, (N,): 1 if the draw is uniform, 0 if it is deterministic.

    For a question with at most one open span, the value is 1.
    """
    log_p_NP = scores_NP.masked_fill(~open_NP, LOW).log_softmax(dim=-1)
    entropy_N = -(log_p_NP.exp() * log_p_NP).masked_fill(~open_NP, 0.0).sum(dim=-1)
    count_N = open_NP.sum(dim=-1)
    return torch.where(count_N > 1, entropy_N / count_N.clamp(min=2).log(), torch.ones_like(entropy_N))
