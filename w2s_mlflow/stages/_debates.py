"""Debates played, written down and measured (Definition 4, Algorithm 1 steps 1 to 4); nothing here sees ground truth.

Shape legend: N questions, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from w2s_mlflow import tasks
from w2s_mlflow.data import spans
from w2s_mlflow.records import Debate, Example, Explanation, Ints, Side, SoftLabels
from w2s_mlflow.stages._verdicts import Verdicts

if TYPE_CHECKING:
    import pandas as pd

    from w2s_mlflow.explainers import Explainer

DEBATES, VERDICTS = "debates.parquet", "verdicts.parquet"
STRONG, WEAK = "strong", "weak"
Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Debater:
    """One side: its decisions, and how it explains them; None says nothing.

    Attributes:
        hear: called before each round but the first with the other side's last words on each question; what of them it
            knows when it speaks. None: all, as they are pieces of the question, which are not shown again.
    """

    name: str
    decisions_N: Ints
    explain: Explainer | None
    hear: Callable[[Sequence[str]], Sequence[str]] | None = None


@dataclass(frozen=True)
class Played:
    """Debates, the strong side first, whose explanations are all that was shown.

    Attributes:
        said: by side, for each debate what it said, round by round.
        heard: by side likewise what it knew of the other side's last words, nothing in the first round.
    """

    debates: Sequence[Debate]
    said: Mapping[str, Sequence[tuple[str, ...]]]
    heard: Mapping[str, Sequence[tuple[str, ...]]]


def claim(task: tasks.Task, question: Example, decision: int) -> str:
    """A decision in words."""
    if task.head == "compare":
        return f"response {'AB'[decision]}"
    if question.candidates and task.head == "choose":
        return question.candidates[decision]
    if task.classes == 2:
        return task.positive if decision else f"it is not so that {task.positive}"
    return f"class {decision}"


def play(task: tasks.Task, questions: Sequence[Example], strong: Debater, weak: Debater, rounds: int) -> Played:
    """Let both sides speak, in each round at the same time; nobody repeats a piece that either side has shown before."""
    said: dict[str, list[list[Explanation]]] = {STRONG: [], WEAK: []}
    heard: dict[str, list[Sequence[str]]] = {STRONG: [], WEAK: []}
    taken: list[set[int]] = [set() for _ in questions]
    for _ in range(rounds):
        for side, other in ((strong, weak), (weak, strong)):
            heard[side.name].append(_heard(side, said[other.name], len(questions)))
        found = {side.name: _turn(side, taken) for side in (strong, weak)}
        for name, explanations in found.items():
            said[name].append(explanations)
            for already, explanation in zip(taken, explanations, strict=True):
                already.update(explanation.pieces)
    sides = [_sides(task, questions, side, said[side.name]) for side in (strong, weak)]
    debates = [Debate(question, *pair) for question, *pair in zip(questions, *sides, strict=True)]
    texts = {name: [[own.text for own in turn] for turn in turns] for name, turns in said.items()}
    return Played(debates, _by_debate(texts), _by_debate(heard))


def _by_debate(turns: Mapping[str, Sequence[Sequence[str]]]) -> dict[str, list[tuple[str, ...]]]:
    """By side, for each debate its texts by round, of the texts of each round."""
    return {name: list(zip(*own, strict=True)) for name, own in turns.items()}


def _heard(side: Debater, turns: Sequence[Sequence[Explanation]], count: int) -> Sequence[str]:
    """What a side knows of the last of the other side's turns, on each question."""
    if not turns or not side.explain:
        return [""] * count
    last = [explanation.text for explanation in turns[-1]]
    return side.hear(last) if side.hear else last


def _turn(side: Debater, taken: Sequence[Collection[int]]) -> list[Explanation]:
    return side.explain(taken) if side.explain else [Explanation("")] * len(taken)


def _sides(task: tasks.Task, questions: Sequence[Example], side: Debater, turns: Sequence[Sequence[Explanation]]) -> list[Side]:
    """A side on each question, with all that it has said."""
    found = []
    for row, question in enumerate(questions):
        decision, own = int(side.decisions_N[row]), [turn[row] for turn in turns]
        found.append(Side(side.name, decision, claim(task, question, decision), _whole(question, own)))
    return found


def _whole(question: Example, turns: Sequence[Explanation]) -> Explanation:
    """What was said in all rounds, as one."""
    if len(turns) == 1:
        return turns[0]
    if chosen := tuple(piece for turn in turns for piece in turn.pieces):
        return Explanation(spans.quoted(question, chosen), chosen)
    return Explanation("\n".join(filter(None, (turn.text for turn in turns))))


def labels(weak: SoftLabels, debates: Sequence[Debate], preference_N: Doubles) -> SoftLabels:
    """What the debates make of the weak side's labels, row for row.

    Where the sides disagree and there is a verdict, P(the strong side's class) = sigmoid(D), the rest is on the weak side's
    class. Where they agree, or the judge says nothing, the weak label stays: there is nothing to decide, or nobody has.
    """
    found_NC = weak.probabilities_NC.copy()
    for row, (debate, preference) in enumerate(zip(debates, preference_N, strict=True)):
        strong, other = debate.first.decision, debate.second.decision
        if strong != other and math.isfinite(preference):
            found_NC[row] = 0
            found_NC[row, strong], found_NC[row, other] = sigmoid(preference), sigmoid(-preference)
    return replace(weak, probabilities_NC=found_NC)


def sigmoid(value: float) -> float:
    """1 / (1 + exp(-value)), without overflow."""
    return 0.5 * (1 + math.tanh(value / 2))


# --- written down -----------------------------------------------------------------------------------------------------


def write(directory: Path, played: Played, verdicts: Sequence[Verdicts]) -> None:
    """Write both tables: a row for each debate, and one for each verdict."""
    _debates(played).to_parquet(directory / DEBATES, index=False)
    _verdicts(played, verdicts).to_parquet(directory / VERDICTS, index=False)


def _debates(played: Played) -> pd.DataFrame:
    import pandas as pd

    rows = []
    for number, debate in enumerate(played.debates):
        question = debate.question
        row: dict[str, Any] = {"id": question.id, "group": question.group, "segments": list(question.segments)}
        row |= {"candidates": list(question.candidates)}
        for side in (debate.first, debate.second):
            own: dict[str, Any] = {"decision": side.decision, "claim": side.claim}
            own |= {"said": list(played.said[side.name][number]), "heard": list(played.heard[side.name][number])}
            own |= {"explanation": side.explanation.text, "pieces": list(side.explanation.pieces)}
            row |= {f"{side.name}_{name}": value for name, value in own.items()}
        rows.append(row)
    return pd.DataFrame(rows)


def _verdicts(played: Played, verdicts: Sequence[Verdicts]) -> pd.DataFrame:
    import pandas as pd

    rows = [
        {"id": debate.question.id, "judge": said.judge, **asdict(verdict)}
        for said in verdicts
        for debate, *both in zip(played.debates, said.strong_first, said.weak_first, strict=True)
        for verdict in both
    ]
    return pd.DataFrame(rows)


# --- measured ---------------------------------------------------------------------------------------------------------


def measures(played: Played, verdicts: Verdicts) -> dict[str, float]:
    """What can be said of debates without ground truth, by the names that `stages/debate.py` explains."""
    from w2s_mlflow import stats

    preference_N, bias_N = verdicts.preference_N(), verdicts.bias_N()
    judged_N, apart_N = np.isfinite(preference_N), apart(played.debates)
    found = {"questions": float(len(preference_N)), "no_verdict": float((~judged_N).sum()), "cost": float(verdicts.cost())}
    found |= {"disagreements": float(apart_N.mean())}
    for side in (STRONG, WEAK):
        told = [debate.first if side == STRONG else debate.second for debate in played.debates]
        found[f"{side}_words"] = float(np.mean([spans.words(own.explanation.text) for own in told]))
    if not judged_N.any():
        return found
    groups_N = np.array([debate.question.group for debate in played.debates])
    for name, rows_N in {"win_rate": judged_N, "apart_win_rate": judged_N & apart_N}.items():
        if rows_N.any():
            won = stats.group_interval(won_N(preference_N[rows_N]), groups_N[rows_N])
            found |= won.named(name)
    found |= {"preference": float(preference_N[judged_N].mean()), "position_bias": float(bias_N[judged_N].mean())}
    first_N = [abs(bias) > abs(own) for bias, own in zip(bias_N[judged_N], preference_N[judged_N], strict=True)]
    found["by_position"] = float(np.mean(first_N))
    return {name: value for name, value in found.items() if math.isfinite(value)}


def apart(debates: Sequence[Debate]) -> NDArray[np.bool_]:
    """Whether the sides disagree, (N,)."""
    return np.array([debate.first.decision != debate.second.decision for debate in debates])


def won_N(preference_N: Doubles) -> Doubles:
    """1 where the strong side wins, 0 where it loses, half of each where the judge finds both alike."""
    return 0.5 + 0.5 * np.sign(preference_N)


def agreements(verdicts: Sequence[Verdicts]) -> dict[str, float]:
    """How often two judges let the same side win, of the debates that both have judged, by `agreement/<one>/<other>`."""
    found = {}
    for number, one in enumerate(verdicts):
        for other in verdicts[number + 1 :]:
            pair = one.preference_N(), other.preference_N()
            both_N = np.isfinite(pair[0]) & np.isfinite(pair[1])
            if both_N.any():
                same = np.mean(np.sign(pair[0][both_N]) == np.sign(pair[1][both_N]))
                found[f"agreement/{one.judge}/{other.judge}"] = float(same)
    return found


def label_N(debates: pd.DataFrame, preference_N: Doubles) -> Ints:
    """The class that the labels of these verdicts (`labels`) hold most probable, the lower one of two; debates as written."""
    strong_N, weak_N = (debates[f"{side}_decision"].to_numpy() for side in (STRONG, WEAK))
    decided_N = np.where(preference_N == 0, np.minimum(strong_N, weak_N), np.where(preference_N > 0, strong_N, weak_N))
    return np.asarray(np.where(np.isfinite(preference_N), decided_N, weak_N))


def against_gold(debates: pd.DataFrame, preference_N: Doubles, gold_N: Ints) -> Mapping[str, float]:
    """What the evaluator can say of debates, as `write` wrote them: of the judge where the sides disagree and one is right."""
    from w2s_mlflow import metrics, stats

    right = {side: debates[f"{side}_decision"].to_numpy() == gold_N for side in (STRONG, WEAK)}
    found = {f"{side}_accuracy": float(correct_N.mean()) for side, correct_N in right.items()}
    found["label_accuracy"] = float((label_N(debates, preference_N) == gold_N).mean())
    decided_N = (right[STRONG] != right[WEAK]) & np.isfinite(preference_N)
    if not decided_N.any():
        return found
    strong_right_N, groups = right[STRONG][decided_N], debates["group"].to_numpy()[decided_N]
    won, p_strong_N = won_N(preference_N[decided_N]), np.array([sigmoid(value) for value in preference_N[decided_N]])
    judged = stats.group_interval(np.where(strong_right_N, won, 1 - won), groups)
    found |= judged.named("judge_accuracy")
    found |= {"decided": float(decided_N.sum()), "strong_right": float(strong_right_N.mean())}
    both_NC, truth_N = np.stack([1 - p_strong_N, p_strong_N], axis=1), strong_right_N.astype(np.int64)
    found["judge_brier"] = metrics.brier_score_loss(both_NC, truth_N)
    found["judge_ece"] = metrics.expected_calibration_error(both_NC, truth_N)
    return found
