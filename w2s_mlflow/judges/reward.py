"""A Bradley-Terry reward model, fitted on another judge's verdicts, that predicts that judge's preferences in new debates.

    P(the first side wins | q) = sigmoid(r(q, first) - r(q, second)),  r(q, side) = w . phi(q, side)

(Bradley and Terry 1952; as a reward model Christiano et al. 2017, eq. 1.) w minimises mean_n CE(P_n, sigmoid(log_odds_n))
+ l2 / 2 |w|^2, a convex problem whose solution is deterministic. Verdicts are soft targets, so uncertain verdicts have less
influence. There is no intercept, so the first position has no advantage, and swapping the sides changes the sign.
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
"""Function that returns the features of sides, (N, D), as a numpy array or scipy sparse matrix. The default is `words`."""
LoadVerdicts = Callable[[], tuple[Sequence[Debate], Sequence[float | None]]]
"""Function that loads judged debates, and the log-odds that the first side of each wins (None without a verdict)."""
LEARNS_FROM = "verdicts"
SIZE = 2**14
"""Number of hash buckets for the features."""
MIN_VERDICTS = 2
"""Minimum number of verdicts to fit on."""


@checked_dataclass
class Options:
    """Options of the judge `reward`."""

    run: str = ""
    """Debate run on whose verdicts the model is fitted, by id or name."""
    of: str = ""
    """Name of the judge in the debate run `run` whose verdicts the model is fitted on. Empty: the run's first judge."""
    l2: float = option(default=0.01, gt=0)
    """L2 penalty on the weights."""

    WRITTEN: ClassVar[str] = "{}=... of --judge-options"


@dataclass(frozen=True)
class Reward:
    """Fitted Bradley-Terry model: weights and feature function."""

    weights_D: NDArray[np.float64]
    features: Features

    def score_N(self, argued: Sequence[Argued]) -> NDArray[np.float64]:
        """Return r(q, side) of each question and side, (N,); only differences between sides of a question matter."""
        reward_N: NDArray[np.float64] = np.asarray(self.features(argued) @ self.weights_D, dtype=np.float64)
        return reward_N

    def judge(self, debates: Sequence[Debate]) -> list[Verdict]:
        """Return a verdict on each debate; its cost is 0."""
        if not debates:
            return []
        first_N, second_N = (self.score_N(argued) for argued in _sides(debates))
        pairs = zip(debates, first_N.tolist(), second_N.tolist(), strict=True)
        return [Verdict(a - b, f"reward {a:.3f} against {b:.3f}", debate.order(), 0) for debate, a, b in pairs]

    def write(self, path: Path) -> None:
        """Write the nonzero weights as JSON; the feature function is not stored."""
        weights = {str(index): float(self.weights_D[index]) for index in np.flatnonzero(self.weights_D)}
        path.write_text(canonical_json({"size": len(self.weights_D), "weights": weights}), encoding="utf-8")


def make(options: Options, answer: LoadVerdicts) -> Judge:
    """Return the judge, which is fitted at its first call.

    Args:
        answer: loads the verdicts to fit on.
    """
    fitted: list[Reward] = []

    def judge(debates: Sequence[Debate]) -> list[Verdict]:
        if not fitted:
            fitted.append(fit(*answer(), options.l2))
        return fitted[0].judge(debates)

    return judge


def fit(debates: Sequence[Debate], log_odds: Sequence[float | None], l2: float, features: Features | None = None) -> Reward:
    """Fit the model on verdicts; `debates` may contain a debate in either order or in both.

    Args:
        log_odds: log-odds that each debate's first side wins; debates without a verdict (None or not finite) are skipped.
        l2: L2 penalty, as in the module's equation.
        features: feature function; None: `words`.

    Raises:
        ConfigError: there are fewer than MIN_VERDICTS verdicts.
    """
    from scipy.special import expit
    from sklearn.linear_model import LogisticRegression

    known = [
        (debate, value) for debate, value in zip(debates, log_odds, strict=True) if value is not None and math.isfinite(value)
    ]
    if len(known) < MIN_VERDICTS:
        verdicts = f"only {len(known)} of {len(debates)} debates have one"
        raise ConfigError(f"the judge reward must be fitted on at least {MIN_VERDICTS} verdicts, but {verdicts}")
    phi = features or words
    first_ND, second_ND = (phi(argued) for argued in _sides([debate for debate, _ in known]))
    difference_ND = first_ND - second_ND
    p_N = expit([value for _, value in known])
    # Each soft target becomes two rows, one per outcome, weighted by the outcome's probability.
    rows, answers = _stacked(difference_ND), np.repeat([1, 0], len(known))
    model = LogisticRegression(C=1 / (l2 * len(known)), fit_intercept=False, tol=1e-8, max_iter=10_000)
    model.fit(rows, answers, sample_weight=np.concatenate([p_N, 1 - p_N]))
    return Reward(model.coef_[0].astype(np.float64), phi)


def read(path: Path, features: Features | None = None) -> Reward:
    """Read a model written by `Reward.write`; `features` must be the feature function that the model was fitted with."""
    content = json.loads(path.read_text(encoding="utf-8"))
    weights_D = np.zeros(content["size"])
    for index, weight in content["weights"].items():
        weights_D[int(index)] = weight
    return Reward(weights_D, features or words)


def words(argued: Sequence[Argued]) -> Any:
    """Return hashed sparse features, (N, D): each word, each word with the decision, the decision, and `_traits`."""
    from sklearn.feature_extraction import FeatureHasher

    return FeatureHasher(SIZE, input_type="pair").transform([list(_features(*pair)) for pair in argued])


def _features(question: Example, side: Side) -> Iterator[tuple[str, float]]:
    for word in _words(side.explanation.text):
        yield f"word {word}", 1.0
        yield f"word {word} for {side.decision}", 1.0
    yield f"decision {side.decision}", 1.0
    yield from _traits(question, side)


def _traits(question: Example, side: Side) -> Iterator[tuple[str, float]]:
    """Yield the log of the explanation's length in words, and the share of its words that occur in the question."""
    explanation_words = _words(side.explanation.text)
    question_words = set(_words(" ".join(question.segments + question.candidates)))
    yield "length", math.log1p(len(explanation_words))
    yield "of the question", sum(word in question_words for word in explanation_words) / max(len(explanation_words), 1)


def _words(text: str) -> list[str]:
    """Return the words without surrounding punctuation; case is kept, since upper-case chess pieces are white."""
    return [word for word in (part.strip(".,;:!?\"'()[]…") for part in text.split()) if word]


def _sides(debates: Sequence[Debate]) -> tuple[list[Argued], list[Argued]]:
    first_sides = [(debate.question, debate.first) for debate in debates]
    return first_sides, [(debate.question, debate.second) for debate in debates]


def _stacked(rows_ND: Any) -> Any:
    """Return the rows twice, one copy after the other."""
    if isinstance(rows_ND, np.ndarray):
        return np.concatenate([rows_ND, rows_ND])
    from scipy import sparse

    return sparse.vstack([rows_ND, rows_ND], format="csr")
