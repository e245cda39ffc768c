"""Judge `human`: people's votes (strong, weak or tie) on the debates of an earlier run, cast in the MLflow UI or a terminal.

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
"""Allowed votes: the side that wins, or a tie."""
LoadVotes = Callable[[], tuple[Sequence[Debate], Sequence[Sequence[str]]]]
"""Function that returns the debates shown to people and, for each debate, a possibly empty sequence of votes (WINNERS)."""


@checked_dataclass
class Options:
    """Options of the judge `human`."""

    run: str = ""
    """Id or name of the debate run that people have voted on."""
    heard: str = ""
    """Digest of the votes, which changes when people add votes. The stage sets this option: leave it empty."""
    prior: float = option(default=0.5, gt=0)
    """Number of votes added to each side before the log-odds are computed (a Beta prior)."""
    others: Literal["reward", "none"] = "reward"
    """How debates without votes are decided. `reward`: by a reward model fitted on the votes; `none`: no verdict."""
    l2: float = option(default=0.01, gt=0)
    """L2 penalty on the weights of the reward model."""

    WRITTEN: ClassVar[str] = "{}=... of --judge-options"


def make(options: Options, answer: LoadVotes) -> Judge:
    """Return the judge, which loads the votes once, at its first call.

    Args:
        answer: function that returns the debates shown to people, and the votes on each.
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
    """Return the fraction of equal votes among all pairs of votes on the same debate; None if no debate has two votes."""
    counts = [Counter(debate_votes) for debate_votes in votes]
    pairs = sum(math.comb(count.total(), 2) for count in counts)
    return sum(math.comb(n, 2) for count in counts for n in count.values()) / pairs if pairs else None


def _verdict(debate: Debate, known: dict[Debate, float], fallback: Verdict) -> Verdict:
    """Return the verdict computed from the votes on the debate in either order, or `fallback` if there are no votes."""
    direct, swapped = known.get(debate), known.get(debate.swapped())
    if direct is None and swapped is None:
        return fallback
    value = direct if direct is not None else -(swapped or 0.0)
    return Verdict(value, "people's votes", debate.order(), 0)
