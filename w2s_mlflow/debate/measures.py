"""Metrics of debates, with and without ground truth.

Shape legend: N questions, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from w2s_mlflow.data import spans
from w2s_mlflow.debate import play
from w2s_mlflow.debate.play import STRONG, WEAK, DebateTranscripts, Doubles
from w2s_mlflow.debate.verdicts import Verdicts
from w2s_mlflow.records import Debate, Ints

if TYPE_CHECKING:
    import pandas as pd


def measures(played: DebateTranscripts, verdicts: Verdicts) -> dict[str, float]:
    """Return the metrics that need no ground truth, by name; `stages/debate.py` documents them."""
    from w2s_mlflow import stats

    preference_N, bias_N = verdicts.preference_N(), verdicts.bias_N()
    judged_N, disagree_N = np.isfinite(preference_N), disagree(played.debates)
    values = {"questions": float(len(preference_N)), "no_verdict": float((~judged_N).sum()), "cost": float(verdicts.cost())}
    values |= {"disagreements": float(disagree_N.mean())}
    for side in (STRONG, WEAK):
        sides = [debate.first if side == STRONG else debate.second for debate in played.debates]
        values[f"{side}_words"] = float(np.mean([spans.count_words(one.explanation.text) for one in sides]))
    if not judged_N.any():
        return values
    groups_N = np.array([debate.question.group for debate in played.debates])
    for name, rows_N in {"win_rate": judged_N, "win_rate_on_disagreements": judged_N & disagree_N}.items():
        if rows_N.any():
            won = stats.group_interval(won_N(preference_N[rows_N]), groups_N[rows_N])
            values |= won.named(name)
    values |= {"preference": float(preference_N[judged_N].mean()), "position_bias": float(bias_N[judged_N].mean())}
    first_N = [abs(bias) > abs(preference) for bias, preference in zip(bias_N[judged_N], preference_N[judged_N], strict=True)]
    values["position_decides_rate"] = float(np.mean(first_N))
    return {name: value for name, value in values.items() if math.isfinite(value)}


def disagree(debates: Sequence[Debate]) -> NDArray[np.bool_]:
    """Return, for each debate, whether the two sides' decisions differ, (N,)."""
    return np.array([debate.first.decision != debate.second.decision for debate in debates])


def won_N(preference_N: Doubles) -> Doubles:
    """Return the strong side's result in each debate, (N,): 1 for a win (D > 0), 0 for a loss (D < 0), and 0.5 for a tie."""
    return 0.5 + 0.5 * np.sign(preference_N)


def agreements(verdicts: Sequence[Verdicts]) -> dict[str, float]:
    """Return the metrics `agreement/<judge>/<judge>`: how often two judges choose the same winner, for each pair of judges.

    The value is a share of the debates on which both judges have a verdict.
    """
    values = {}
    for number, first in enumerate(verdicts):
        for other in verdicts[number + 1 :]:
            pair = first.preference_N(), other.preference_N()
            both_N = np.isfinite(pair[0]) & np.isfinite(pair[1])
            if both_N.any():
                same = np.mean(np.sign(pair[0][both_N]) == np.sign(pair[1][both_N]))
                values[f"agreement/{first.judge}/{other.judge}"] = float(same)
    return values


def label_N(debates: pd.DataFrame, preference_N: Doubles) -> Ints:
    """Return the most probable class of each soft label that `play.labels` makes, (N,); on a tie, the lower class.

    `debates` is the table of debates that `debate_tables.write` writes.
    """
    strong_N, weak_N = (debates[f"{side}_decision"].to_numpy() for side in (STRONG, WEAK))
    decided_N = np.where(preference_N == 0, np.minimum(strong_N, weak_N), np.where(preference_N > 0, strong_N, weak_N))
    return np.asarray(np.where(np.isfinite(preference_N), decided_N, weak_N))


def against_gold(debates: pd.DataFrame, preference_N: Doubles, gold_N: Ints) -> Mapping[str, float]:
    """Return metrics of both sides and of the labels, and of the judge on the debates in which exactly one side is right.

    `debates` is the table of debates that `debate_tables.write` writes.
    """
    from w2s_mlflow import metrics, stats

    right = {side: debates[f"{side}_decision"].to_numpy() == gold_N for side in (STRONG, WEAK)}
    values = {f"{side}_accuracy": float(correct_N.mean()) for side, correct_N in right.items()}
    values["label_accuracy"] = float((label_N(debates, preference_N) == gold_N).mean())
    decided_N = (right[STRONG] != right[WEAK]) & np.isfinite(preference_N)
    if not decided_N.any():
        return values
    strong_right_N, groups = right[STRONG][decided_N], debates["group"].to_numpy()[decided_N]
    won, p_strong_N = won_N(preference_N[decided_N]), np.array([play.sigmoid(value) for value in preference_N[decided_N]])
    judged = stats.group_interval(np.where(strong_right_N, won, 1 - won), groups)
    values |= judged.named("judge_accuracy")
    values |= {"decided": float(decided_N.sum()), "always_strong_accuracy": float(strong_right_N.mean())}
    both_NC, truth_N = np.stack([1 - p_strong_N, p_strong_N], axis=1), strong_right_N.astype(np.int64)
    values["judge_brier"] = metrics.brier_score_loss(both_NC, truth_N)
    values["judge_ece"] = metrics.expected_calibration_error(both_NC, truth_N)
    return values
