"""Prompts of the text tasks: each task has one, a text that ends where the answer begins, and a word for each class.

A language model without training answers by the more probable word. A frozen language model is read at the prompt's last token,
where it has read both the row and the question (`--freeze backbone`). An encoder reads no prompt, but the row's segments.
"""

from __future__ import annotations

from collections.abc import Callable

from w2s_mlflow.records import Example
from w2s_mlflow.tasks._prompts import Prompt, Query, unchanged


def words_after(about: str, text: Callable[..., str], words: tuple[str, str]) -> Prompt:
    """Return a prompt for a two-class task.

    Args:
        about: what the prompt asks, in one sentence.
        text: function that returns the text of the prompt. Its arguments are the segments of an example.
        words: the answers that stand for class 0 and class 1. Each follows after a space, and may be several tokens long.
    """

    def queries(example: Example) -> list[Query]:
        asked = text(*example.segments)
        return [Query(asked, word) for word in words]

    return Prompt(about, queries, unchanged)


def _entailment(premise: str, hypothesis: str) -> str:
    return f"{premise}\nQuestion: {hypothesis.rstrip('.')}. True or False?\nAnswer:"


def _answered(question: str, sentence: str) -> str:
    return f"Question: {question}\nSentence: {sentence}\nDoes the sentence answer the question? Yes or No?\nAnswer:"


def _alike(question: str) -> Callable[[str, str], str]:
    return lambda first, second: f"First: {first}\nSecond: {second}\n{question} Yes or No?\nAnswer:"


NO_YES = ("No", "Yes")
SENTIMENT = words_after(
    "Is the sentiment of the review negative or positive?",
    lambda sentence: f"Review: {sentence}\nSentiment:",
    ("negative", "positive"),
)
GRAMMAR = words_after(
    "Is the sentence acceptable English?",
    lambda sentence: f"Sentence: {sentence}\nIs the sentence good English? Yes or No?\nAnswer:",
    NO_YES,
)
ENTAILMENT = words_after("Is the hypothesis true, given the premise?", _entailment, ("False", "True"))
ANSWERED = words_after("Does the sentence answer the question?", _answered, NO_YES)
PARAPHRASE = words_after("Do the sentences mean the same?", _alike("Do the two sentences mean the same?"), NO_YES)
DUPLICATE = words_after("Do the questions ask the same?", _alike("Do the two questions ask the same?"), NO_YES)
SIMILAR = words_after("Are the sentences similar in meaning?", _alike("Are the two sentences similar in meaning?"), NO_YES)
