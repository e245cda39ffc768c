"""Prompts of the text tasks: what a model reads, and which word stands for which class."""

from __future__ import annotations

import pytest

from w2s_mlflow import tasks
from w2s_mlflow.records import Example

FAMILIES = ("glue", "inference")
PROMPTED = [task for task in tasks.all_tasks() if task.family in FAMILIES]
READ = {
    "sst2": ("a charming film", "Review: a charming film\nSentiment:", ("negative", "positive")),
    "snli": ("A man runs.|A man moves.", "A man runs.\nQuestion: A man moves. True or False?\nAnswer:", ("False", "True")),
    "qnli": (
        "Who ran?|Ann ran.",
        "Question: Who ran?\nSentence: Ann ran.\nDoes the sentence answer the question? Yes or No?\nAnswer:",
        ("No", "Yes"),
    ),
    "mrpc": (
        "Ann ran {fast}.|Ann jogged.",
        "First: Ann ran {fast}.\nSecond: Ann jogged.\nDo the two sentences mean the same? Yes or No?\nAnswer:",
        ("No", "Yes"),
    ),
}


@pytest.mark.parametrize("name", READ)
def test_a_prompt_ends_where_the_word_of_class_0_or_class_1_follows(name: str) -> None:
    segments, text, words = READ[name]
    (prompt,) = tasks.find(name).prompts.values()
    queries = prompt.queries(Example("1", "1", tuple(segments.split("|"))))
    assert [(query.text, query.continuation) for query in queries] == [(text, word) for word in words]


@pytest.mark.parametrize("task", PROMPTED, ids=lambda task: task.name)
def test_every_text_task_has_one_prompt_of_its_whole_text_that_ends_without_a_space(task: tasks.Task) -> None:
    (prompt,) = task.prompts.values()
    count = 1 if task.name in ("cola", "sst2") else 2
    example = Example("1", "1", ("some words", "other words")[:count])
    negative, positive = prompt.queries(example)
    assert negative.text == positive.text == negative.text.rstrip() and negative.continuation != positive.continuation
    assert all(segment in negative.text for segment in example.segments)
    assert list(prompt.scores(example, [-2.0, -1.0])) == [-2.0, -1.0]
