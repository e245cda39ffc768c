"""The policy gradient of eq. 2, enumerated: its expectation over all batches of K draws is the exact gradient."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from w2s_mlflow.explainers import _plackett_luce, _policy

OPEN = torch.tensor([[True, True, True]])
EVERY = torch.tensor([list(itertools.permutations(range(3), 2))])
"""The six ordered draws of two of three pieces, (1, 6, 2)."""
REWARD = torch.tensor([1.0, -2.0, 0.5, 3.0, 0.0, -0.7], dtype=torch.float64)
"""D of each of them."""


def scores() -> Tensor:
    return torch.tensor([[0.3, -0.8, 0.5]], dtype=torch.float64, requires_grad=True)


def log_p(scores_NP: Tensor, drawn_NKS: Tensor) -> Tensor:
    return _plackett_luce.log_probability(scores_NP, OPEN, drawn_NKS)


def away(scores_NP: Tensor, drawn_NKS: Tensor) -> Tensor:
    """log p / p_0, where the policy starts with all pieces alike."""
    return log_p(scores_NP, drawn_NKS) - log_p(torch.zeros_like(scores_NP), drawn_NKS)


def exact(kl: float) -> Tensor:
    """The gradient of E[D] - kl KL(p || p_0), by summing over the six draws."""
    theta = scores()
    log_p_K, away_K = log_p(theta, EVERY)[0], away(theta, EVERY)[0]
    objective = (log_p_K.exp() * (REWARD - kl * away_K)).sum()
    (gradient,) = torch.autograd.grad(objective, theta)
    return gradient


def estimate(rows: tuple[int, ...], kl: float) -> Tensor:
    """What one batch of draws, by their numbers in EVERY, gives as the gradient of what is minimised."""
    theta, drawn = scores(), EVERY[:, list(rows)]
    reward_NK = REWARD[list(rows)].unsqueeze(0) - kl * away(theta, drawn)
    (gradient,) = torch.autograd.grad(_policy.surrogate(log_p(theta, drawn), reward_NK), theta)
    return gradient


@pytest.mark.parametrize("kl", [0.0, 0.4])
@pytest.mark.parametrize("draws", [2, 3])
def test_over_all_batches_of_draws_the_estimate_is_the_exact_gradient(draws: int, kl: float) -> None:
    probability = log_p(scores(), EVERY)[0].exp().detach()
    expected = torch.zeros(1, 3, dtype=torch.float64)
    for rows in itertools.product(range(6), repeat=draws):
        expected += probability[list(rows)].prod() * estimate(rows, kl)
    torch.testing.assert_close(expected, -exact(kl))
    assert exact(kl).abs().max() > 0.05


def test_an_advantage_is_the_reward_less_the_mean_of_the_others() -> None:
    found = _policy.advantage(torch.tensor([[4.0, 1.0, 1.0, 0.0], [2.0, 2.0, 2.0, 2.0]]))
    assert found[0].tolist() == pytest.approx([4 - 2 / 3, 1 - 5 / 3, 1 - 5 / 3, 0 - 2])
    assert found[1].tolist() == [0, 0, 0, 0]


def test_rewards_that_are_all_alike_teach_nothing() -> None:
    theta = scores()
    (gradient,) = torch.autograd.grad(_policy.surrogate(log_p(theta, EVERY), torch.full((1, 6), 7.0)), theta)
    assert not gradient.any()
