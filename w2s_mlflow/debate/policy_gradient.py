"""The debate term of eq. 2, -lambda D, whose policy gradient trains the choice of evidence (`also` of training/loop.py).

For each question of a batch, DRAWS ordered samples of spans are judged against the weak side's evidence. The gradient of the
expected reward is estimated with the mean reward of the other samples as baseline (`explainers/_policy.py`). The reward is D
minus `kl` times log p / p_0; the second part is, in expectation, a KL penalty towards the starting policy p_0. The random
stream depends only on the seed, the step and the micro-batch, so training resumed from a checkpoint repeats the samples. Shape
legend: N questions, K samples (DRAWS) per question.
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

    from w2s_mlflow.explainers.extractive import EncodedQuestions, Policy
    from w2s_mlflow.modeling.heads import Head

DRAWS = 4


@dataclass(frozen=True)
class Arguing:
    """Debate term of the strong model's training: samples evidence, has it judged, and adds the policy gradient.

    Attributes:
        weak: the weak side on each training question; it does not change during training.
        weight: lambda of eq. 2.
        kl: coefficient of log p / p_0 in the reward.
        size: number of evidence spans per sample.
    """

    head: Head
    policy: Policy
    reading: EncodedQuestions
    weak: Sequence[Side]
    judge: Judge
    task: tasks.Task
    weight: float
    kl: float
    size: int
    seed: int
    micro_batch: int | None

    def __call__(self, step: int, examples: Ints, backward: Callable[..., Any]) -> dict[str, float]:
        """Add the gradients of one batch, and return its metrics, averaged over questions and samples."""
        from w2s_mlflow.training import batching

        found: dict[str, float] = {}
        for number, rows in enumerate(batching.micro_batch_rows(self.reading.data, examples, self.micro_batch)):
            share = len(rows) / len(examples)
            random = streams.torch_generator(self.seed, streams.POLICY_DRAWS, step, number)
            loss, values = self._argued(rows, random)
            backward(self.weight * share * loss)
            found = {name: found.get(name, 0.0) + share * value for name, value in values.items()}
        return found

    def _argued(self, rows: Ints, random: Generator) -> tuple[Tensor, dict[str, float]]:
        import torch

        from w2s_mlflow.explainers import extractive

        batch, piece_RL = self.reading.batch(rows, next(self.head.parameters()).device)
        with torch.no_grad():
            decisions_N = self.head(batch).argmax(dim=1)
        width = int(self.reading.count_N[rows].max(initial=1))
        scores_NP, open_NP = extractive.scores(self.head, self.policy, batch, piece_RL, decisions_N, width)
        drawn_NKS = extractive.draw(scores_NP, open_NP, DRAWS, self.size, random)
        log_p_NK = extractive.log_probability(scores_NP, open_NP, drawn_NKS)
        away_NK = (log_p_NK - extractive.log_probability(torch.zeros_like(scores_NP), open_NP, drawn_NKS)).detach()
        explained = self._explained(rows, drawn_NKS)
        judged_NK = torch.from_numpy(self._judged(rows, decisions_N.tolist(), explained)).to(away_NK)
        values = {"reward": judged_NK.mean(), "win_rate": (judged_NK > 0).double().mean(), "kl": away_NK.mean()}
        values["entropy"] = extractive.entropy(scores_NP.detach(), open_NP).mean()
        words = float(np.mean([spans.count_words(one.text) for own in explained for one in own]))
        said = {f"align/{name}": float(value) for name, value in values.items()} | {"align/evidence_words": words}
        return extractive.surrogate(log_p_NK, judged_NK - self.kl * away_NK), said

    def _explained(self, rows: Ints, drawn_NKS: Tensor) -> list[list[Explanation]]:
        """Return the explanations of each question, one per sample of spans."""
        from w2s_mlflow.explainers import extractive

        every = [self.reading.questions[row] for row in rows for _ in range(DRAWS)]
        found = extractive.explained(every, drawn_NKS.flatten(0, 1))
        return [found[start : start + DRAWS] for start in range(0, len(found), DRAWS)]

    def _judged(self, rows: Ints, decisions: Sequence[int], explained: Sequence[Sequence[Explanation]]) -> NDArray[np.float64]:
        """Return D of each sample of evidence, (N, K)."""
        debates = []
        for row, decision, own in zip(rows, decisions, explained, strict=True):
            question = self.reading.questions[row]
            claim = play.claim(self.task, question, decision)
            debates += [Debate(question, Side(play.STRONG, decision, claim, one), self.weak[row]) for one in own]
        verdicts = self.judge([order for debate in debates for order in (debate, debate.swapped())])
        return rewards([judges.preference(*verdicts[start : start + 2]) for start in range(0, len(verdicts), 2)])


def rewards(preferences: Sequence[float | None]) -> NDArray[np.float64]:
    """Return D of each sample, (N, K). A missing D is replaced by the mean of its question's other D, so it has no effect."""
    found_NK = np.array(preferences, dtype=np.float64).reshape(-1, DRAWS)
    known_NK = np.isfinite(found_NK)
    mean_N = np.where(known_NK, found_NK, 0).sum(axis=1) / np.maximum(known_NK.sum(axis=1), 1)
    return np.where(known_NK, found_NK, mean_N[:, None])
