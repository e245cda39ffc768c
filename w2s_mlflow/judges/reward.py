"""A Bradley-Terry model learned from verdicts so far: what a judge prefers, without asking it again.

    P(the first side wins | q) = sigmoid(r(q, first) - r(q, second)),  r(q, side) = w . phi(q, side)

(Bradley and Terry 1952; as a reward model Christiano et al. 2017, eq. 1.) w is the least of mean_n CE(P_n, sigmoid(log_odds_n))
+ l2 / 2 |w|^2, a convex problem without random numbers; verdicts are soft targets, so that one that is unsure teaches less.
There is no intercept, so that the first place is worth nothing, and swapped sides change the sign.
Shape legend: N debates, D features.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from w2s_mlflow.config import checked_dataclass, option
from w2s_mlflow.exceptions import ConfigError
from w2s_mlflow.judges import Judge
from w2s_mlflow.records import Debate, Example, Side, Verdict, canonical_json

Argued = tuple[Example, Side]
Features = Callable[[Sequence[Argued]], Any]
"""What is known of sides: (N, D), a numpy array or a sparse matrix of scipy; an embedding may take the place of `words`."""
SoFar = Callable[[], tuple[Sequence[Debate], Sequence[float | None]]]
"""Debates that were judged, and for each the log-odds that its first side wins, None where there was no verdict."""
SIZE = 2**14
"""Buckets that words are hashed into."""
FEW = 2
"""Fewer verdicts teach nothing."""


@checked_dataclass
class Options:
    """What it learns from, and how freely."""

    run: str = ""
    """The run of debates whose verdicts it learns from, by id or name."""
    of: str = ""
    """The judge of that run whose verdicts these are; nothing: its first."""
    l2: float = option(default=0.01, gt=0)
    """How strongly its weights are held near 0."""

    WRITTEN: ClassVar[str] = "{}=... of --judge-options"


@dataclass(frozen=True)
class Reward:
    """A fitted model. `weights_D` is float64."""

    weights_D: NDArray[np.float64]
    features: Features

    def score_N(self, argued: Sequence[Argued]) -> NDArray[np.float64]:
        """r(q, side) of each, (N,), up to a constant of the question."""
        found_N: NDArray[np.float64] = np.asarray(self.features(argued) @ self.weights_D, dtype=np.float64)
        return found_N

    def judge(self, debates: Sequence[Debate]) -> list[Verdict]:
        """A verdict on each debate; nothing is paid for."""
        if not debates:
            return []
        first_N, second_N = (self.score_N(argued) for argued in _sides(debates))
        pairs = zip(debates, first_N.tolist(), second_N.tolist(), strict=True)
        return [Verdict(a - b, f"reward {a:.3f} against {b:.3f}", debate.order(), 0) for debate, a, b in pairs]

    def write(self, path: Path) -> None:
        """Keep the weights that are not 0 as JSON; the features are not in it."""
        weights = {str(place): float(self.weights_D[place]) for place in np.flatnonzero(self.weights_D)}
        path.write_text(canonical_json({"size": len(self.weights_D), "weights": weights}), encoding="utf-8")


def make(options: Options, answer: SoFar) -> Judge:
    """The judge, fitted when it is first asked.

    Args:
        answer: the verdicts so far.
    """
    fitted: list[Reward] = []

    def judge(debates: Sequence[Debate]) -> list[Verdict]:
        if not fitted:
            fitted.append(fit(*answer(), options.l2))
        return fitted[0].judge(debates)

    return judge


def fit(debates: Sequence[Debate], log_odds: Sequence[float | None], l2: float, features: Features | None = None) -> Reward:
    """The model that the verdicts teach; either order of a debate, or both, may be among them.

    Args:
        log_odds: that each debate's first side wins; one without a verdict (None, or not a number) is left out.
        l2: as in the module's equation.

    Raises:
        ConfigError: there are fewer than FEW verdicts.
    """
    from scipy.special import expit
    from sklearn.linear_model import LogisticRegression

    known = [
        (debate, value) for debate, value in zip(debates, log_odds, strict=True) if value is not None and math.isfinite(value)
    ]
    if len(known) < FEW:
        raise ConfigError(
            f"the judge reward needs at least {FEW} verdicts to learn from, got {len(known)} of {len(debates)} debates"
        )
    phi = features or words
    first_ND, second_ND = (phi(argued) for argued in _sides([debate for debate, _ in known]))
    difference_ND = first_ND - second_ND
    p_N = expit([value for _, value in known])
    # A soft target is one row for each answer, weighed by its probability.
    rows, answers = _stacked(difference_ND), np.repeat([1, 0], len(known))
    model = LogisticRegression(C=1 / (l2 * len(known)), fit_intercept=False, tol=1e-8, max_iter=10_000)
    model.fit(rows, answers, sample_weight=np.concatenate([p_N, 1 - p_N]))
    return Reward(model.coef_[0].astype(np.float64), phi)


def read(path: Path, features: Features | None = None) -> Reward:
    """What `Reward.write` wrote, for the same features."""
    held = json.loads(path.read_text(encoding="utf-8"))
    weights_D = np.zeros(held["size"])
    for place, weight in held["weights"].items():
        weights_D[int(place)] = weight
    return Reward(weights_D, features or words)


def words(argued: Sequence[Argued]) -> Any:
    """phi_ND, sparse: the words of the explanation, alone and with the decision that they speak for, hashed; and `_traits`."""
    from sklearn.feature_extraction import FeatureHasher

    return FeatureHasher(SIZE, input_type="pair").transform([list(_named(*one)) for one in argued])


def _named(question: Example, side: Side) -> Iterator[tuple[str, float]]:
    for word in _words(side.explanation.text):
        yield f"word {word}", 1.0
        yield f"word {word} for {side.decision}", 1.0
    yield f"decision {side.decision}", 1.0
    yield from _traits(question, side)


def _traits(question: Example, side: Side) -> Iterator[tuple[str, float]]:
    """How long the explanation is, and how far it keeps to the question's own words."""
    own = _words(side.explanation.text)
    asked = set(_words(" ".join(question.segments + question.candidates)))
    yield "length", math.log1p(len(own))
    yield "of the question", sum(word in asked for word in own) / max(len(own), 1)


def _words(text: str) -> list[str]:
    """Its words without the marks around them; in chess an upper-case letter is white's, so case stays."""
    return [word for word in (part.strip(".,;:!?\"'()[]…") for part in text.split()) if word]


def _sides(debates: Sequence[Debate]) -> tuple[list[Argued], list[Argued]]:
    first = [(debate.question, debate.first) for debate in debates]
    return first, [(debate.question, debate.second) for debate in debates]


def _stacked(rows_ND: Any) -> Any:
    """The rows twice, one set after the other."""
    if isinstance(rows_ND, np.ndarray):
        return np.concatenate([rows_ND, rows_ND])
    from scipy import sparse

    return sparse.vstack([rows_ND, rows_ND], format="csr")
