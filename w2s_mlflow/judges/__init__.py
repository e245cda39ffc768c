"""Judges, which decide which side of a debate argues better (Definition 4): one judge per file.

A judge is a function that takes debates and returns one verdict on each, in the same order. Every file has a frozen dataclass
`Options` and a function `make(options, answer) -> Judge`; the stage passes the callable `answer`, which each file documents. A
judge sees no ground truth, and is given each debate in both orders. A judge that needs the network may raise ConfigError
before it has judged all debates; the answers received by then are cached.

A judge that learns from the debates of an earlier run declares `LEARNS_FROM`, the kind of past verdicts that it reads
(debate/past_verdicts.py), and has the options listed below for this kind. Its `answer` returns the debates and the
verdicts on each.

| `LEARNS_FROM` | verdicts | options |
|---|---|---|
| `verdicts` | D according to one judge of the run; NaN without a verdict | `run`, and `of`, the name of that judge or empty |
| `votes` | people's votes, a tuple of `strong`, `weak` and `tie` | `run`, and `heard`, the digest of the votes |
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from w2s_mlflow.records import Debate, Verdict

Judge = Callable[[Sequence[Debate]], list[Verdict]]


def preference(strong_first: Verdict, weak_first: Verdict) -> float | None:
    """Return D, the log-odds that the strong side wins, averaged over both orders (Definition 4); None if a verdict is missing.

    D = (l(S, W) - l(W, S)) / 2, where l(X, Y) is the log-odds that the side X, which is shown first, wins against Y. The
    judge's bias for the first position cancels out. Swapping the sides changes the sign of D.
    """
    if strong_first.log_odds is None or weak_first.log_odds is None:
        return None
    return (strong_first.log_odds - weak_first.log_odds) / 2


def bias(strong_first: Verdict, weak_first: Verdict) -> float | None:
    """Return the log-odds that the first position wins, averaged over both orders; None if a verdict is missing.

    The bias is (l(S, W) + l(W, S)) / 2, in the notation of `preference`.
    """
    if strong_first.log_odds is None or weak_first.log_odds is None:
        return None
    return (strong_first.log_odds + weak_first.log_odds) / 2
