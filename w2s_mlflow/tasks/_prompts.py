"""Prompts: how a language model answers a task without labels and without training.

A prompt asks for the probabilities of continuations of texts, and turns them into one score per class. It is reported as
label-free elicitation, unless it is a planner: a planner adds knowledge of the task that the model was not asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from w2s_mlflow.records import Example

SEPARATOR = "\n"


@dataclass(frozen=True, slots=True)
class Query:
    """A text, and a continuation whose probability is asked for. The continuation follows after a space."""

    text: str
    continuation: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """A way to ask a language model for the class of an example.

    Attributes:
        about: what the prompt asks, in one sentence.
        queries: function that returns the queries of an example. All examples have equally many.
        scores: function that returns one score per class, given the example and the log probability of each query's
            continuation. The softmax of the scores gives the class probabilities.
    """

    about: str
    queries: Callable[[Example], Sequence[Query]]
    scores: Callable[[Example, Sequence[float]], Sequence[float]]


def candidates_after(example: Example) -> list[Query]:
    """Return one query per candidate: the example's text, continued by the candidate."""
    return [Query(SEPARATOR.join(example.segments), candidate) for candidate in example.candidates]


def unchanged(example: Example, log_probabilities: Sequence[float]) -> Sequence[float]:
    """Return the log probabilities as scores."""
    return log_probabilities


LIKELIHOOD = Prompt("How probable is each candidate after the text?", candidates_after, unchanged)
"""Prompt for tasks with candidates, such as two responses. The class probabilities are proportional to the probabilities that
the model gives to the candidates."""
