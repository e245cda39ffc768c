"""Students that are not trained: what they answer with, what they store, what they read, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.conftest import SMALL
from w2s_mlflow import models
from w2s_mlflow.analysis import build
from w2s_mlflow.data import gold, loading
from w2s_mlflow.exceptions import ConfigError
from w2s_mlflow.methods import elicitation as untrained
from w2s_mlflow.modeling import elicitation
from w2s_mlflow.stages import student
from w2s_mlflow.tasks import _chess_prompts as chess_prompts
from w2s_mlflow.tasks._prompts import Prompt
from w2s_mlflow.tracking import results

pytestmark = pytest.mark.usefixtures("shared")

TASK = "chess_preference"
TINY: dict[str, Any] = SMALL | {"task": TASK, "weak": "chess-27k", "strong": "chess-43k"}


def asked(**options: Any) -> Any:
    return student.run(student.Config(**TINY | {"eval_split": "none"} | options))


def expected(prompt: Prompt, part: str) -> tuple[list[str], Any]:
    """The ids of a part, and what the model answers by the prompt."""
    examples = loading.resolve_and_split(student.Config(**TINY).resolved())[1].parts()[part]
    head = elicitation.Continuations(*models.load(models.find("chess-43k", "strong"), pretrained=True))
    return [example.id for example in examples], elicitation.probabilities(head, prompt, examples)


@pytest.mark.parametrize(
    ("options", "prompt"),
    [
        ({"method": "zero_shot"}, chess_prompts.PROMPTS["reply"]),
        ({"method": "zero_shot", "prompt": "choice"}, chess_prompts.PROMPTS["choice"]),
        ({"method": "planner"}, chess_prompts.PLANNERS["exchange"]),
    ],
    ids=["default", "choice", "planner"],
)
def test_an_untrained_student_answers_by_its_prompt(options: dict[str, Any], prompt: Prompt) -> None:
    found = asked(**options)
    for part, stored in (("test", found.predictions("test")), ("transfer", found.weak_labels())):
        ids, answers_NC = expected(prompt, part)
        np.testing.assert_allclose(stored.of(ids), answers_NC, atol=1e-5)
    assert found.params["method"] == options["method"]
    assert not [name for name in found.metrics if name.startswith("gold/")]


def test_its_answers_to_transfer_are_labels_that_another_student_can_learn() -> None:
    labeller = asked(method="zero_shot", prompt="reply")
    taught = asked(labels=f"run:{labeller.run_id}", epochs=1)
    assert taught.tags["w2s.labels_run_id"] == labeller.run_id
    assert taught.params["labels"] == "zero_shot reply"


def test_the_best_prompt_is_the_most_accurate_on_the_gold_of_supervision() -> None:
    found = asked(method="best_prompt")
    split = loading.resolve_and_split(student.Config(**TINY).resolved())[1]
    examples = split.supervision + split.supervision_validation
    gold_N = gold.gold_of(student.Config(**TINY)).read(examples, split="supervision", reason="test")
    head = elicitation.Continuations(*models.load(models.find("chess-43k", "strong"), pretrained=True))
    accuracies = {
        name: float((elicitation.probabilities(head, prompt, examples).argmax(axis=1) == gold_N).mean())
        for name, prompt in chess_prompts.PROMPTS.items()
    }
    assert {name: found.metrics[f"prompt/{name}_accuracy"] for name in accuracies} == pytest.approx(accuracies)
    best = found.tags[untrained.CHOSEN]
    assert accuracies[best] == max(accuracies.values())
    same = asked(method="zero_shot", prompt=best)
    assert np.array_equal(found.predictions("test").probabilities_NC, same.predictions("test").probabilities_NC)
    assert found.metrics["gold/supervision/prompt"] == len(examples) and "w2s.gold" not in found.tags


def test_the_seed_changes_the_labelled_rows_and_not_the_answers_on_test() -> None:
    first, second = (asked(method="zero_shot", prompt="reply", seed=seed) for seed in (0, 1))
    assert set(first.weak_labels().ids) != set(second.weak_labels().ids)
    order = second.predictions("test").ids
    np.testing.assert_allclose(first.predictions("test").of(order), second.predictions("test").probabilities_NC, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"method": "zero_shot", "prompt": "repli"}, r"^--prompt must be one of .*reply.*, got 'repli' \(did you mean"),
        ({"method": "zero_shot", "prompt": "exchange"}, r"^--prompt must be one of choice, .*, got 'exchange'"),
        ({"prompt": "reply"}, r"^--prompt is an option of --labels none or planner, not of weak$"),
        ({"method": "planner", "task": "sst2"}, r"^--task must be a task with planners .*planner, got sst2$"),
        ({"method": "zero_shot", "task": "boolq"}, r"^--task must be a task with prompts .*none, got boolq$"),
        ({"method": "best_prompt", "task": "boolq"}, r"^--task must be a task with prompts .*, got boolq$"),
        ({"method": "zero_shot", "keep_model": "always"}, r"^--keep-model must be never with --labels none, .*, got always$"),
        ({"labels": "best_prompt", "generative_epochs": 1}, r"^--generative-epochs must be 0 with --labels best_prompt"),
        ({"method": "planner", "early_stopping": "oracle"}, r"^--early-stopping must be weak or none with --labels planner"),
    ],
)  # fmt: skip
def test_what_cannot_be_asked_is_refused(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        student.Config(**TINY | options).resolved()


def test_the_head_that_chooses_needs_no_prompt() -> None:
    resolved = student.Config(**TINY | {"task": "chess", "head": "lm_choice", "method": "zero_shot"}).resolved()
    assert resolved.label_options == {"prompt": None}


def test_label_free_answers_and_their_ceiling_are_scored_on_selection_too() -> None:
    found = asked(method="zero_shot", prompt="reply", eval_split="test", epochs=1)
    top = results.get(found.tags["w2s.ceiling_run_id"])
    for run in (found, top):
        assert {"selection/accuracy", "test/accuracy"} <= run.metrics.keys()
    gap = found.metrics["test/ceiling_accuracy"] - found.metrics["test/weak_accuracy"]
    assert found.metrics["test/pgr"] == pytest.approx(
        (found.metrics["test/accuracy"] - found.metrics["test/weak_accuracy"]) / gap
    )
    planned = asked(method="planner", eval_split="test", epochs=1)
    assert "selection/accuracy" not in planned.metrics


def test_a_better_prompt_than_the_ceiling_is_seen_by_the_analysis() -> None:
    """The analysis says `elicited` exactly if the model's own replies are better than the ceiling on `selection`."""
    asked(method="zero_shot", prompt="reply", eval_split="test", epochs=1)
    asked(method="baseline", eval_split="test", epochs=1)
    frames = build.load(build.pull(build.Config()))
    students = frames.outcomes[frames.outcomes["method"] == "baseline"]
    answers = results.get(frames.outcomes[frames.outcomes["method"] == "zero_shot"]["run_id"].iloc[0])
    top = results.get(answers.tags["w2s.ceiling_run_id"])
    is_better = answers.metrics["selection/accuracy"] > top.metrics["selection/accuracy"]
    assert students["elicited_correct"].notna().all() == is_better
    statuses = frames.runs[frames.runs["method"] == "baseline"]["pgr_status"]
    assert (statuses == "elicited").all() == is_better
    tags = {results.get(run_id).tags["w2s.pgr_status"] for run_id in students["run_id"]}
    assert tags <= {"ok", "undetermined"}  # a run's tag does not depend on other runs
