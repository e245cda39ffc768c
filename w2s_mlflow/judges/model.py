"""Judge `model`: the frozen weak model, which scores each side's claim given only that side's evidence.

score(side) = log p_J(the side's claim | the question with only the side's evidence). The log-odds are the difference of the
two scores. The claim of a side without evidence is scored on the other side's evidence; in a consultancy, both claims are thus
scored on the same evidence. If neither side shows evidence, both claims are scored without any. If an explanation does not
consist of spans of the question, such as a rationale, all spans of the question are removed and the explanation is appended.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from w2s_mlflow.config import checked_dataclass
from w2s_mlflow.data import spans
from w2s_mlflow.judges import Judge
from w2s_mlflow.records import Debate, Example, Explanation, Floats, Verdict


@checked_dataclass
class Options:
    """Options of the judge `model`, which has none."""


def make(options: Options, answer: Callable[[Sequence[Example]], Floats]) -> Judge:
    """Return the judge.

    Args:
        answer: function that returns the frozen model's log probabilities of the classes for questions, (N, C).
    """

    def judge(debates: Sequence[Debate]) -> list[Verdict]:
        if not debates:
            return []
        pairs = [(debate.question, _explanation_for(debate, of_first)) for debate in debates for of_first in (True, False)]
        question_by_pair = {
            pair: evidence(*pair) for pair in dict.fromkeys(pairs)
        }  # build each question once, because both orders of a debate use it
        questions = [question_by_pair[pair] for pair in pairs]
        row_by_question = {question: row for row, question in enumerate(dict.fromkeys(questions))}
        log_p_NC = answer(list(row_by_question))[[row_by_question[question] for question in questions]]
        return [_verdict(debate, *log_p_NC[2 * n : 2 * n + 2]) for n, debate in enumerate(debates)]

    return judge


def _explanation_for(debate: Debate, of_first: bool) -> Explanation:
    """Return the explanation used to score one side's claim: this side's or, if it is empty, the other side's."""
    side, other = (debate.first, debate.second) if of_first else (debate.second, debate.first)
    return side.explanation if side.explanation.text else other.explanation


def evidence(question: Example, explanation: Explanation) -> Example:
    """Return the question with only the spans of the explanation. An explanation without spans is appended as text."""
    reduced = spans.select(question, explanation.pieces)
    if explanation.pieces or not explanation.text:
        return reduced
    return replace(reduced, segments=(*reduced.segments, explanation.text))


def _verdict(debate: Debate, first_C: Floats, second_C: Floats) -> Verdict:
    scores = float(first_C[debate.first.decision]), float(second_C[debate.second.decision])
    lines = (f"log p({side.claim}) = {score:.3f}" for side, score in zip((debate.first, debate.second), scores, strict=True))
    return Verdict(scores[0] - scores[1], f"{', '.join(lines)}, each on the evidence shown for it", debate.order(), 0)
