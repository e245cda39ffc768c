"""Who says which side of a debate argues better (Definition 4): one judge per file, `(debates) -> verdicts` in their order.

Every file has a frozen `Options` and `make(options, answer) -> Judge`, where `answer` is the callable that the stage hands it,
as the file says. A judge is shown no ground truth, and is asked about each debate in both orders. One that needs the network
may raise ConfigError in the middle: what it has said before is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from w2s_mlflow.records import Debate, Verdict

Judge = Callable[[Sequence[Debate]], list[Verdict]]


def preference(strong_first: Verdict, weak_first: Verdict) -> float | None:
    """D = (l(S, W) - l(W, S)) / 2, the log-odds that the strong side wins (Definition 4); None where an order has no verdict.

    It changes its sign when the sides are swapped, and whatever a judge gives the first place cancels.
    """
    if strong_first.log_odds is None or weak_first.log_odds is None:
        return None
    return (strong_first.log_odds - weak_first.log_odds) / 2


def bias(strong_first: Verdict, weak_first: Verdict) -> float | None:
    """(l(S, W) + l(W, S)) / 2, the log-odds that a judge gives to the first place, whoever stands there; None as above."""
    if strong_first.log_odds is None or weak_first.log_odds is None:
        return None
    return (strong_first.log_odds + weak_first.log_odds) / 2
