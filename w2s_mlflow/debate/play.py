"""Play debates, and combine weak labels with a judge's verdicts (Definition 4, Algorithm 1 steps 1 to 4).

No ground truth is read.

Shape legend: N questions, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from w2s_mlflow import tasks
from w2s_mlflow.data import spans
from w2s_mlflow.records import Debate, Example, Explanation, Ints, Side, SoftLabels

if TYPE_CHECKING:
    from w2s_mlflow.explainers import Explainer

STRONG, WEAK = "strong", "weak"
Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Debater:
    """One side of the debates.

    Attributes:
        explain: the side's explainer. If it is None, the side shows no evidence.
        hear: function that takes the other side's latest text on each question, and returns the part that this side takes into
            account. It is called before each round except the first. If it is None, the side takes the whole text into account.
    """

    name: str
    decisions_N: Ints
    explain: Explainer | None
    hear: Callable[[Sequence[str]], Sequence[str]] | None = None


@dataclass(frozen=True)
class DebateTranscripts:
    """Finished debates with the texts of their rounds.

    Attributes:
        debates: the debates, with the strong side first. Each side has one explanation, merged from those of all rounds.
        said: for each side (by name) and each debate, the texts that the side showed, one per round.
        heard: for each side (by name) and each debate, the parts of the other side's latest text that the side took into
            account, one part per round. In the first round, it is empty.
    """

    debates: Sequence[Debate]
    said: Mapping[str, Sequence[tuple[str, ...]]]
    heard: Mapping[str, Sequence[tuple[str, ...]]]


def claim(task: tasks.Task, question: Example, decision: int) -> str:
    """Return the claim that states a decision in words, such as `class 1`; for candidates of one word, the candidate."""
    if question.candidates and (task.head == "lm_choice" or task.family == "chess"):
        return question.candidates[decision]
    if task.head == "reward":
        return f"response {'AB'[decision]}"
    if task.classes == 2:
        return task.positive if decision else f"it is not so that {task.positive}"
    return f"class {decision}"


def play(task: tasks.Task, questions: Sequence[Example], strong: Debater, weak: Debater, rounds: int) -> DebateTranscripts:
    """Play all rounds. In each round both sides speak at the same time; spans shown in earlier rounds are not shown again."""
    said: dict[str, list[list[Explanation]]] = {STRONG: [], WEAK: []}
    heard: dict[str, list[Sequence[str]]] = {STRONG: [], WEAK: []}
    taken: list[set[int]] = [set() for _ in questions]
    for _ in range(rounds):
        for side, other in ((strong, weak), (weak, strong)):
            heard[side.name].append(_heard(side, said[other.name], len(questions)))
        turns = {side.name: _turn(side, taken) for side in (strong, weak)}
        for name, explanations in turns.items():
            said[name].append(explanations)
            for spans_shown, explanation in zip(taken, explanations, strict=True):
                spans_shown.update(explanation.pieces)
    sides = [_sides(task, questions, side, said[side.name]) for side in (strong, weak)]
    debates = [Debate(question, *pair) for question, *pair in zip(questions, *sides, strict=True)]
    texts = {name: [[explanation.text for explanation in turn] for turn in turns] for name, turns in said.items()}
    return DebateTranscripts(debates, _by_debate(texts), _by_debate(heard))


def _by_debate(turns: Mapping[str, Sequence[Sequence[str]]]) -> dict[str, list[tuple[str, ...]]]:
    """Regroup the texts of each side, which has a list of texts per round, into a tuple of texts per debate."""
    return {name: list(zip(*texts, strict=True)) for name, texts in turns.items()}


def _heard(side: Debater, turns: Sequence[Sequence[Explanation]], count: int) -> Sequence[str]:
    """Return, for each question, the part of the other side's latest text that this side takes into account."""
    if not turns or not side.explain:
        return [""] * count
    last = [explanation.text for explanation in turns[-1]]
    return side.hear(last) if side.hear else last


def _turn(side: Debater, taken: Sequence[Collection[int]]) -> list[Explanation]:
    return side.explain(taken) if side.explain else [Explanation("")] * len(taken)


def _sides(task: tasks.Task, questions: Sequence[Example], side: Debater, turns: Sequence[Sequence[Explanation]]) -> list[Side]:
    """Return one side of every debate, with the explanations of all rounds merged into one."""
    sides = []
    for row, question in enumerate(questions):
        decision, explanation = int(side.decisions_N[row]), _merged(question, [turn[row] for turn in turns])
        sides.append(Side(side.name, decision, claim(task, question, decision), explanation))
    return sides


def _merged(question: Example, turns: Sequence[Explanation]) -> Explanation:
    """Merge one side's explanations of all rounds into one."""
    if len(turns) == 1:
        return turns[0]
    if chosen := tuple(span for turn in turns for span in turn.pieces):
        return Explanation(spans.quoted(question, chosen), chosen)
    return Explanation("\n".join(filter(None, (turn.text for turn in turns))))


def labels(weak: SoftLabels, debates: Sequence[Debate], preference_N: Doubles) -> SoftLabels:
    """Combine the weak side's labels with the verdicts. All arguments have one entry per question, in the same order.

    Where the sides disagree and there is a verdict, P(strong side's class) = sigmoid(D) and P(weak side's class) =
    sigmoid(-D). Where they agree or there is no verdict, the weak label is kept.
    """
    labels_NC = weak.probabilities_NC.copy()
    for row, (debate, preference) in enumerate(zip(debates, preference_N, strict=True)):
        strong, other = debate.first.decision, debate.second.decision
        if strong != other and math.isfinite(preference):
            labels_NC[row] = 0
            labels_NC[row, strong], labels_NC[row, other] = sigmoid(preference), sigmoid(-preference)
    return replace(weak, probabilities_NC=labels_NC)


def sigmoid(value: float) -> float:
    """Return 1 / (1 + exp(-value)), without overflow."""
    return 0.5 * (1 + math.tanh(value / 2))
