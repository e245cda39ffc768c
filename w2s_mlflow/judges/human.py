"""People as the judge: what they said of debates in the MLflow UI or at a terminal, strong, weak or tie.

The log-odds of a debate are log((s + t / 2 + prior) / (w + t / 2 + prior)) for s votes for the strong side, w for the weak
and t ties: the mean vote, a tie being half a vote for each, held back by `prior` votes for each side (1/2: Jeffreys' prior),
so that one person's word is no certainty. People see a debate once, so the other order has the opposite sign, and no bias for
a place can be told. A debate that nobody has judged, because it shows other evidence or asks another question, is decided by
a Bradley-Terry model learned from the votes (reward.py): so a model can be aligned with what people said once.
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

WINNERS = ("strong", "weak", "tie")
"""What a person may say."""
Heard = Callable[[], tuple[Sequence[Debate], Sequence[Sequence[str]]]]
"""Debates that people were shown, and for each the votes, of WINNERS, maybe none."""


@checked_dataclass
class Options:
    """Whose words count, and for what."""

    run: str = ""
    """The run of debates that people have judged, by id or name."""
    heard: str = ""
    """The digest of what was said of its debates, found when the stage is called: another once people have said more."""
    prior: float = option(default=0.5, gt=0)
    """Votes that each side has before anybody has voted."""
    others: Literal["reward", "none"] = "reward"
    """Who decides where nobody has voted: reward, a model that is learned from the votes; or none, and there is no verdict."""
    l2: float = option(default=0.01, gt=0)
    """How strongly that model's weights are held near 0."""

    WRITTEN: ClassVar[str] = "{}=... of --judge-options"


def make(options: Options, answer: Heard) -> Judge:
    """The judge, who is heard once, when first asked.

    Args:
        answer: the debates that people were shown, with their votes.
    """

    @functools.cache
    def hear() -> tuple[dict[Debate, float], reward.Reward | None]:
        debates, votes = answer()
        found = {debate: log_odds(own, debate, options.prior) for debate, own in zip(debates, votes, strict=True) if own}
        learns = options.others == "reward"
        return found, reward.fit(list(found), list(found.values()), options.l2) if learns else None

    def judge(debates: Sequence[Debate]) -> list[Verdict]:
        known, learned = hear()
        guessed = learned.judge(debates) if learned else [Verdict(None, "not judged", one.order(), 0) for one in debates]
        return [_verdict(debate, known, guess) for debate, guess in zip(debates, guessed, strict=True)]

    return judge


def log_odds(votes: Sequence[str], debate: Debate, prior: float) -> float:
    """That the debate's first side wins, by the votes on it."""
    count = Counter(votes)
    half = count["tie"] / 2 + prior
    return math.log((count[debate.first.name] + half) / (count[debate.second.name] + half))


def agreement(votes: Sequence[Sequence[str]]) -> float | None:
    """How often two people say the same of one debate, over all pairs of votes on the same; None without a pair."""
    counts = [Counter(own) for own in votes]
    pairs = sum(math.comb(count.total(), 2) for count in counts)
    return sum(math.comb(n, 2) for count in counts for n in count.values()) / pairs if pairs else None


def _verdict(debate: Debate, known: dict[Debate, float], guess: Verdict) -> Verdict:
    """What people said of the debate, in whichever order it was shown to them; else what is guessed."""
    own, other = known.get(debate), known.get(debate.swapped())
    if own is None and other is None:
        return guess
    value = own if own is not None else -(other or 0.0)
    return Verdict(value, "people's votes", debate.order(), 0)
