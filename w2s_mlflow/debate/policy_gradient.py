"""The debate term of eq. 2, -lambda D. Its policy gradient trains the strong side to choose evidence.

The term is an auxiliary objective of the training loop (`Options.auxiliary` in training/loop.py).

For each question of a batch, K ordered samples of evidence spans are drawn from the policy p, and the judge compares each of
them with the weak side's evidence. The reward of a sample is D, the judge's log-odds for the strong side, minus `kl` times
log (p / p_0). In expectation, the second part is a KL penalty that keeps p close to the untrained policy p_0. The gradient of
the expected reward is estimated with a baseline: the mean reward of the question's other samples (`explainers/_policy.py`). The
random stream depends only on the seed, the step and the micro-batch, so training that is resumed from a checkpoint draws the
same samples.

Shape legend: N questions, K samples (DRAWS) per question.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from w2s_mlflow import judges, streams, tasks
from w2s_mlflow.data import spans
from w2s_mlflow.debate import play
from w2s_mlflow.judges import Judge
from w2s_mlflow.records import Debate, Explanation, Ints, Side

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from w2s_mlflow.explainers._policy import Policy
    from w2s_mlflow.explainers._token_spans import EncodedQuestions
    from w2s_mlflow.modeling.heads import Head

DRAWS = 4
"""K, the number of samples of evidence per question."""


@dataclass(frozen=True)
class DebateTerm:
    """Auxiliary objective: it samples the strong side's evidence, asks the judge, and adds the policy gradient.

    Attributes:
        encoded: the training questions, encoded for the strong model.
        weak: the weak side of the debate on each training question, which does not change during training.
        weight: lambda of eq. 2.
        kl: coefficient of the KL penalty log (p / p_0), which is subtracted from D.
        size: number of evidence spans per sample.
    """

    head: Head
    policy: Policy
    encoded: EncodedQuestions
    weak: Sequence[Side]
    judge: Judge
    task: tasks.Task
    weight: float
    kl: float
    size: int
    seed: int
    micro_batch: int | None

    def __call__(self, step: int, examples: Ints, backward: Callable[..., Any]) -> dict[str, float]:
        """Backpropagate the debate term for one batch, and return the batch's metrics, averaged over questions and samples."""
        from w2s_mlflow.training import batching

        metrics: dict[str, float] = {}
        for number, rows in enumerate(batching.micro_batch_rows(self.encoded.data, examples, self.micro_batch)):
            share = len(rows) / len(examples)
            random = streams.torch_generator(self.seed, streams.POLICY_DRAWS, step, number)
            loss, values = self._loss(rows, random)
            backward(self.weight * share * loss)
            metrics = {name: metrics.get(name, 0.0) + share * value for name, value in values.items()}
        return metrics

    def _loss(self, rows: Ints, random: Generator) -> tuple[Tensor, dict[str, float]]:
        """Return a loss whose gradient is the policy gradient of one micro-batch, and the metrics of this micro-batch."""
        import torch

        from w2s_mlflow.explainers import _plackett_luce, _policy

        batch, span_RL = self.encoded.batch(rows, next(self.head.parameters()).device)
        with torch.no_grad():
            decisions_N = self.head(batch).argmax(dim=1)
        width = int(self.encoded.count_N[rows].max(initial=1))
        scores_NP, open_NP = _policy.scores(self.head, self.policy, batch, span_RL, decisions_N, width)
        drawn_NKS = _plackett_luce.draw(scores_NP, open_NP, DRAWS, self.size, random)
        log_p_NK = _plackett_luce.log_probability(scores_NP, open_NP, drawn_NKS)
        log_p0_NK = _plackett_luce.log_probability(torch.zeros_like(scores_NP), open_NP, drawn_NKS)
        log_ratio_NK = (log_p_NK - log_p0_NK).detach()
        explanations = self._explanations(rows, drawn_NKS)
        reward_NK = torch.from_numpy(self._rewards(rows, decisions_N.tolist(), explanations)).to(log_ratio_NK)
        values = {"reward": reward_NK.mean(), "win_rate": (reward_NK > 0).double().mean(), "kl": log_ratio_NK.mean()}
        values["entropy"] = _plackett_luce.entropy(scores_NP.detach(), open_NP).mean()
        words = float(np.mean([spans.count_words(one.text) for samples in explanations for one in samples]))
        metrics = {f"align/{name}": float(value) for name, value in values.items()} | {"align/evidence_words": words}
        return _policy.surrogate(log_p_NK, reward_NK - self.kl * log_ratio_NK), metrics

    def _explanations(self, rows: Ints, drawn_NKS: Tensor) -> list[list[Explanation]]:
        """Return the explanations of each question in `rows`, one per sample of spans."""
        from w2s_mlflow.explainers import _extractive

        questions = [self.encoded.questions[row] for row in rows for _ in range(DRAWS)]
        explanations = _extractive.explained(questions, drawn_NKS.flatten(0, 1))
        return [explanations[start : start + DRAWS] for start in range(0, len(explanations), DRAWS)]

    def _rewards(
        self, rows: Ints, decisions: Sequence[int], explanations: Sequence[Sequence[Explanation]]
    ) -> NDArray[np.float64]:
        """Return the judge's D for each sample of evidence, (N, K)."""
        debates = []
        for row, decision, samples in zip(rows, decisions, explanations, strict=True):
            question = self.encoded.questions[row]
            claim = play.claim(self.task, question, decision)
            debates += [Debate(question, Side(play.STRONG, decision, claim, one), self.weak[row]) for one in samples]
        verdicts = self.judge([order for debate in debates for order in (debate, debate.swapped())])
        return rewards([judges.preference(*verdicts[start : start + 2]) for start in range(0, len(verdicts), 2)])


def rewards(preferences: Sequence[float | None]) -> NDArray[np.float64]:
    """Return D of each sample, (N, K). A missing D is replaced by the mean of the question's other D, so it has no effect."""
    preference_NK = np.array(preferences, dtype=np.float64).reshape(-1, DRAWS)
    known_NK = np.isfinite(preference_NK)
    mean_N = np.where(known_NK, preference_NK, 0).sum(axis=1) / np.maximum(known_NK.sum(axis=1), 1)
    return np.where(known_NK, preference_NK, mean_N[:, None])


def new_policy(head: Head, seed: int) -> Policy:
    """Return an untrained policy for the model of `head`, on the same device."""
    from w2s_mlflow.explainers._policy import Policy

    return Policy(head.model.config.hidden_size, seed).to(next(head.parameters()).device)
