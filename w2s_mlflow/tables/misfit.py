"""The student's gain over its supervisor against its misfit, the disagreement with its supervisor's labels.

With d(f, g) the expected loss of g as an answer to f, theory bounds the gain from below:

- Squared error (Charikar, Pabbaraju & Shiragur 2024, arXiv:2405.15116, Theorem 1): d(truth, student) <= d(truth, weak) -
  d(student, weak). So the gain d(truth, weak) - d(truth, student) is at least the misfit d(student, weak). The theorem is about
  real-valued functions, such as the probability of one of two classes. With more classes, squared error is a Bregman
  divergence of vectors, to which the next inequality applies.
- Cross-entropy (Mulgund & Pabbaraju 2025, arXiv:2501.19105, which generalises the inequality to Bregman divergences, here KL):
  KL(truth || student) <= KL(truth || weak) - KL(student || weak). KL(truth || g) is the cross-entropy of g if the truth is a
  class, and the misfit is the reverse KL divergence: of the student from the weak labels.

Both hold if the truth lies in a convex set of models and the student minimises the misfit over this set. Finetuning does
neither: the models are no convex set, and the loss is the forward cross-entropy on a sample. So the table shows how near the
gain is to the misfit; a gain below the misfit contradicts no theorem.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from w2s_mlflow import stats
from w2s_mlflow.tables import LABEL, PAIR, logged

CAPTION = (
    "Gain and misfit of students of weak labels on the test rows, means over n seeds with 95% t intervals over seeds. `gain`: "
    "loss of the supervisor minus loss of the student, against ground truth. `misfit`: the same loss of the student against "
    "the supervisor. `squared_error` is the Brier score; theory says gain >= misfit (Charikar et al. 2024, Theorem 1). "
    "`cross_entropy` has the misfit KL(student || supervisor), for which theory says the same (Mulgund & Pabbaraju 2025); "
    "probabilities below the smallest float32 count as that number. Both theorems need a convex set of models that contains "
    "the truth, and a student that minimises the misfit. `error` is the share of wrong answers, and its misfit the share of "
    "answers that differ from the supervisor's; here the gain never exceeds the misfit. `difference` is gain minus misfit."
)
FRAMES = ("outcomes",)
COLUMNS = [*LABEL, "measure", "n", "gain", "gain_low", "gain_high", "misfit", "misfit_low", "misfit_high"]
COLUMNS += ["difference", "difference_low", "difference_high"]
LABELS = "weak"
TINY = float(np.finfo(np.float32).tiny)

Probabilities = NDArray[np.float64]
Distance = Callable[[Probabilities, Probabilities], float]


def table(outcomes: pd.DataFrame) -> pd.DataFrame:
    """Return one row per students that differ in their seed alone, and measure."""
    known = outcomes["probabilities"].notna() & outcomes["weak_probabilities"].notna()
    students = outcomes[known & (logged(outcomes, "labels") == LABELS)]
    keys = list(dict.fromkeys(LABEL + PAIR))
    rows = [
        dict(zip(keys, key, strict=True)) | {"measure": measure, "n": len(group)} | _row(group, measure)
        for key, group in students.groupby(keys, sort=False)
        for measure in MEASURES
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def _row(group: pd.DataFrame, measure: str) -> dict[str, Any]:
    pairs = [gain_and_misfit(measure, *row) for row in zip(*(group[name] for name in _NEEDED), strict=True)]
    gains, misfits = (np.array(values) for values in zip(*pairs, strict=True))
    named = {"gain": gains, "misfit": misfits, "difference": gains - misfits}
    intervals = {name: stats.seed_interval(values, units=list(group["checkpoints"])) for name, values in named.items()}
    return {key: value for name, interval in intervals.items() for key, value in interval.named(name).items()}


def gain_and_misfit(measure: str, student_NC: Any, weak_NC: Any, gold_N: Any) -> tuple[float, float]:
    """Return the gain of a student over its supervisor, and its misfit, in one of MEASURES."""
    student, weak = (np.asarray(probabilities, dtype=np.float64) for probabilities in (student_NC, weak_NC))
    truth, distance = np.eye(student.shape[1])[np.asarray(gold_N)], MEASURES[measure]
    return distance(truth, weak) - distance(truth, student), distance(student, weak)


def _squared(p_NC: Probabilities, q_NC: Probabilities) -> float:
    return float(((p_NC - q_NC) ** 2).sum(axis=1).mean() / 2)


def _kl(p_NC: Probabilities, q_NC: Probabilities) -> float:
    """Return the mean KL(p || q). If p is the one-hot ground truth, this is the cross-entropy of q."""
    logs = [np.log(np.maximum(values, TINY)) for values in (p_NC, q_NC)]
    return float((p_NC * (logs[0] - logs[1])).sum(axis=1).mean())


def _different(p_NC: Probabilities, q_NC: Probabilities) -> float:
    return float((p_NC.argmax(axis=1) != q_NC.argmax(axis=1)).mean())


MEASURES: dict[str, Distance] = {"squared_error": _squared, "cross_entropy": _kl, "error": _different}
_NEEDED = ("probabilities", "weak_probabilities", "gold")
