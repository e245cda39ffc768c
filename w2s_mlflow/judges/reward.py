"""Judge `reward`: a Bradley-Terry reward model, fitted on another judge's verdicts to predict that judge's preferences.

    P(the first side wins | q) = sigmoid(r(q, first) - r(q, second)),  r(q, side) = w . phi(q, side)

(Bradley and Terry 1952; used as a reward model by Christiano et al. 2017, eq. 1.) w minimises
mean_n CE(P_n, sigmoid(log_odds_n)) + l2 / 2 |w|^2, a convex problem whose solution is deterministic. Verdicts are soft
targets, so uncertain verdicts have less influence. There is no intercept, so the first position has no advantage: swapping
the sides changes the sign of the log-odds.
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
"""Function that returns the features of N pairs of a question and a side, as a numpy array or scipy sparse matrix (N, D)."""
LoadVerdicts = Callable[[], tuple[Sequence[Debate], Sequence[float | None]]]
"""Function that returns judged debates and, for each, the log-odds that its first side wins (None without a verdict)."""
LEARNS_FROM = "verdicts"
SIZE = 2**14
"""Number of hash buckets for the features."""
MIN_VERDICTS = 2
"""Minimum number of verdicts to fit on."""


@checked_dataclass
class Options:
    """Options of the judge `reward`."""

    run: str = ""
    """Id or name of the debate run whose verdicts the reward model is fitted on."""
    of: str = ""
    """Name of one judge of the debate run `run`. The model is fitted on this judge's verdicts. Empty: the run's first judge."""
    l2: float = option(default=0.01, gt=0)
    """L2 penalty on the weights of the reward model."""

    WRITTEN: ClassVar[str] = "{}=... of --judge-options"


@dataclass(frozen=True)
class Reward:
    """Fitted Bradley-Terry model: weights and feature function."""

    weights_D: NDArray[np.float64]
    features: Features

    def score_N(self, argued: Sequence[Argued]) -> NDArray[np.float64]:
        """Return the reward r(q, side) of each pair of a question and a side, (N,).

        Only the difference between the rewards of the two sides of a question is meaningful.
        """
        reward_N: NDArray[np.float64] = np.asarray(self.features(argued) @ self.weights_D, dtype=np.float64)
        return reward_N

    def judge(self, debates: Sequence[Debate]) -> list[Verdict]:
        """Return a verdict on each debate. The cost of every verdict is 0."""
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
    """Return the judge, whose reward model is fitted at the first call.

    Args:
        answer: function that returns the debates and verdicts to fit on.
    """
    fitted: list[Reward] = []

    def judge(debates: Sequence[Debate]) -> list[Verdict]:
        if not fitted:
            fitted.append(fit(*answer(), options.l2))
        return fitted[0].judge(debates)

    return judge


def fit(debates: Sequence[Debate], log_odds: Sequence[float | None], l2: float, features: Features | None = None) -> Reward:
    """Fit the reward model on verdicts. `debates` may contain each debate in one order or in both orders.

    Args:
        log_odds: log-odds that each debate's first side wins; debates without a verdict (None or not finite) are skipped.
        l2: L2 penalty, as in the module's equation.
        features: feature function; `words` if None.

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
    # Each soft target becomes two rows, one per outcome. The weight of a row is the probability of its outcome.
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
    """Return hashed sparse features (N, D): words, pairs of a word and the decision, the decision itself, and `_traits`."""
    from sklearn.feature_extraction import FeatureHasher

    return FeatureHasher(SIZE, input_type="pair").transform([list(_features(*pair)) for pair in argued])


def _features(question: Example, side: Side) -> Iterator[tuple[str, float]]:
    for word in _words(side.explanation.text):
        yield f"word {word}", 1.0
        yield f"word {word} for {side.decision}", 1.0
    yield f"decision {side.decision}", 1.0
    yield from _traits(question, side)


def _traits(question: Example, side: Side) -> Iterator[tuple[str, float]]:
    """Yield log(1 + number of words in the explanation), and the share of these words that occur in the question."""
    explanation_words = _words(side.explanation.text)
    question_words = set(_words(" ".join(question.segments + question.candidates)))
    yield "length", math.log1p(len(explanation_words))
    yield "of the question", sum(word in question_words for word in explanation_words) / max(len(explanation_words), 1)


def _words(text: str) -> list[str]:
    """Return the words without surrounding punctuation. Case is kept, because upper-case letters denote white chess pieces."""
    return [word for word in (part.strip(".,;:!?\"'()[]…") for part in text.split()) if word]


def _sides(debates: Sequence[Debate]) -> tuple[list[Argued], list[Argued]]:
    first_sides = [(debate.question, debate.first) for debate in debates]
    return first_sides, [(debate.question, debate.second) for debate in debates]


def _stacked(rows_ND: Any) -> Any:
    """Return two copies of the rows, one below the other."""
    if isinstance(rows_ND, np.ndarray):
        return np.concatenate([rows_ND, rows_ND])
    from scipy import sparse

    return sparse.vstack([rows_ND, rows_ND], format="csr")
