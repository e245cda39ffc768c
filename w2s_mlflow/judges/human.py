"""People's votes on the debates of an earlier run (strong, weak or tie), cast in the MLflow UI or at a terminal.

The log-odds of a debate are log((s + t / 2 + prior) / (w + t / 2 + prior)) for s votes for the strong side, w for the weak
side and t ties. A tie counts as half a vote for each side, and `prior` votes are added to each side (1/2: Jeffreys' prior), so
that a single vote is not taken as certain. People see each debate in one order only: the verdict on the other order has the
opposite sign, and position bias cannot be measured. A debate without votes, such as one with new evidence, is decided by a
Bradley-Terry model fitted on the votes (reward.py), so a model can be aligned with votes that were collected once.
"""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import ClassVar, Literal

from w2s_mlflow.config import checked_dataclass, option
from w2s_mlflow.judges import Judge, reward
from w2s_mlflow.records import Debate, Verdict

LEARNS_FROM = "votes"
WINNERS = ("strong", "weak", "tie")
"""Allowed votes."""
LoadVotes = Callable[[], tuple[Sequence[Debate], Sequence[Sequence[str]]]]
"""Function that loads the debates shown to people, and the votes on each debate (values of WINNERS; may be empty)."""


@checked_dataclass
class Options:
    """Options of the judge `human`."""

    run: str = ""
    """Debate run that people have voted on, by id or name."""
    heard: str = ""
    """Digest of the votes, which changes when people add votes. The stage sets it; leave it empty."""
    prior: float = option(default=0.5, gt=0)
    """Number of votes added to each side before the log-odds are computed (a Beta prior)."""
    others: Literal["reward", "none"] = "reward"
    """How debates without votes are decided. `reward`: by a reward model fitted on the votes; `none`: no verdict."""
    l2: float = option(default=0.01, gt=0)
    """L2 penalty on the weights of the reward model."""

    WRITTEN: ClassVar[str] = "{}=... of --judge-options"


def make(options: Options, answer: LoadVotes) -> Judge:
    """Return the judge; the votes are loaded once, at its first call.

    Args:
        answer: loads the debates shown to people, and their votes.
    """

    @functools.cache
    def load() -> tuple[dict[Debate, float], reward.Reward | None]:
        debates, votes = answer()
        log_odds_by_debate = {
            debate: log_odds(ballots, debate, options.prior) for debate, ballots in zip(debates, votes, strict=True) if ballots
        }
        learns = options.others == "reward"
        return log_odds_by_debate, reward.fit(
            list(log_odds_by_debate), list(log_odds_by_debate.values()), options.l2
        ) if learns else None

    def judge(debates: Sequence[Debate]) -> list[Verdict]:
        known, learned = load()
        fallbacks = (
            learned.judge(debates) if learned else [Verdict(None, "not judged", debate.order(), 0) for debate in debates]
        )
        return [_verdict(debate, known, fallback) for debate, fallback in zip(debates, fallbacks, strict=True)]

    return judge


def log_odds(votes: Sequence[str], debate: Debate, prior: float) -> float:
    """Return the log-odds that the debate's first side wins, computed from the votes on the debate."""
    count = Counter(votes)
    half = count["tie"] / 2 + prior
    return math.log((count[debate.first.name] + half) / (count[debate.second.name] + half))


def agreement(votes: Sequence[Sequence[str]]) -> float | None:
    """Return the fraction of pairs of votes on the same debate in which both votes agree; None if there are no pairs."""
    counts = [Counter(debate_votes) for debate_votes in votes]
    pairs = sum(math.comb(count.total(), 2) for count in counts)
    return sum(math.comb(n, 2) for count in counts for n in count.values()) / pairs if pairs else None


def _verdict(debate: Debate, known: dict[Debate, float], fallback: Verdict) -> Verdict:
    """Return the verdict of the votes on the debate, whichever side was shown first; `fallback` if there are none."""
    direct, swapped = known.get(debate), known.get(debate.swapped())
    if direct is None and swapped is None:
        return fallback
    value = direct if direct is not None else -(swapped or 0.0)
    return Verdict(value, "people's votes", debate.order(), 0)
