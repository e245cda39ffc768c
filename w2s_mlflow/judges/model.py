"""A frozen weak model as the judge: what it would say of the question if it were shown one side's evidence alone.

score(side) = log p_J(the side's own claim | the question with only the side's evidence), and the log-odds are the difference.
A side that shows nothing is judged by what the other shows, so that of one who argues alone (a consultant) both claims are
held against the same evidence; where neither shows anything, against none. An explanation that is no piece of the question,
such as a rationale, is read as one more text after what is left of it.
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
    """A judge that has none."""


def make(options: Options, answer: Callable[[Sequence[Example]], Floats]) -> Judge:
    """The judge.

    Args:
        answer: log probabilities of the classes, (N, C), of questions, by a model that is not trained any more.
    """

    def judge(debates: Sequence[Debate]) -> list[Verdict]:
        if not debates:
            return []
        seen = [(debate.question, _seen(debate, own)) for debate in debates for own in (True, False)]
        left = {one: evidence(*one) for one in dict.fromkeys(seen)}  # the orders of a debate share them
        questions = [left[one] for one in seen]
        once = {question: row for row, question in enumerate(dict.fromkeys(questions))}
        log_p_NC = answer(list(once))[[once[question] for question in questions]]
        return [_verdict(debate, *log_p_NC[2 * n : 2 * n + 2]) for n, debate in enumerate(debates)]

    return judge


def _seen(debate: Debate, of_first: bool) -> Explanation:
    """What one side's claim is held against."""
    own, other = (debate.first, debate.second) if of_first else (debate.second, debate.first)
    return own.explanation if own.explanation.text else other.explanation


def evidence(question: Example, explanation: Explanation) -> Example:
    """The question with only the explanation's pieces, or with none of its own and the explanation's text after it."""
    left = spans.shown(question, explanation.pieces)
    if explanation.pieces or not explanation.text:
        return left
    return replace(left, segments=(*left.segments, explanation.text))


def _verdict(debate: Debate, first_C: Floats, second_C: Floats) -> Verdict:
    scores = float(first_C[debate.first.decision]), float(second_C[debate.second.decision])
    said = (f"log p({side.claim}) = {score:.3f}" for side, score in zip((debate.first, debate.second), scores, strict=True))
    return Verdict(scores[0] - scores[1], f"{', '.join(said)}, each on the evidence shown for it", debate.order(), 0)
