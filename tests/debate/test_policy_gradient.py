"""Training on debates: a policy comes to show what its judge prefers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from w2s_mlflow import models, tasks
from w2s_mlflow.debate import participants, policy_gradient
from w2s_mlflow.debate.policy_gradient import DebateTerm
from w2s_mlflow.modeling import heads
from w2s_mlflow.records import Debate, Example, Explanation, Side, Verdict

LINE = "Ke2 Qd3 Rc4 kf6 pb5 ne5 >"
QUESTIONS = [Example(str(row), "g", (LINE,), ("Qd5", "Rc5")) for row in range(8)]
PREFERRED = 0
"""The piece of each question that the judge likes to see."""


def judge(debates: Sequence[Debate]) -> list[Verdict]:
    """The side that shows the preferred piece argues better, wherever it stands."""
    verdicts = []
    for one in debates:
        first, second = (PREFERRED in side.explanation.pieces for side in (one.first, one.second))
        verdicts.append(Verdict(2.0 * (first - second), "", one.order(), 0))
    return verdicts


def test_the_policy_learns_to_show_what_the_judge_prefers() -> None:
    torch.manual_seed(0)
    head = heads.LMChoice(*models.load(models.find("chess-27k", "strong"), pretrained=True))
    policy = policy_gradient.new_policy(head, seed=0)
    silent = [Side("weak", 0, "a claim", Explanation("", ())) for _ in QUESTIONS]
    encoded = participants.encoded(head, QUESTIONS)
    task, how = tasks.find("chess"), {"weight": 1.0, "kl": 0.0, "size": 1, "seed": 0, "micro_batch": None}
    term = DebateTerm(head, policy, encoded, silent, judge, task, **how)  # type: ignore[arg-type]
    optimizer = torch.optim.Adam(policy.parameters(), lr=1e-2)
    rewards = []
    for step in range(25):
        optimizer.zero_grad()
        rewards.append(term(step, np.arange(len(QUESTIONS)), lambda loss: loss.backward())["align/reward"])
        optimizer.step()
    assert rewards[0] < 1 and np.mean(rewards[-5:]) > 1.9, "2 is the most that the judge gives"
