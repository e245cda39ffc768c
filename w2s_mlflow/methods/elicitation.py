"""Answers of the strong model without training: it answers the parts of a split by a prompt of the task."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from w2s_mlflow.methods.student_options import Config
from w2s_mlflow.pipeline import finetune, ground_truth
from w2s_mlflow.pipeline.context import Context
from w2s_mlflow.records import Example, Predictions
from w2s_mlflow.tasks import Prompt

if TYPE_CHECKING:
    from w2s_mlflow.modeling.heads import Head
    from w2s_mlflow.tracking.recorder import Recorder

CHOSEN = "w2s.prompt"
"""Tag with the name of the prompt that `--labels best_prompt` has chosen."""


def record(context: Context[Config], prompt: Prompt | None, start: Path | None, recorder: Recorder) -> Head:
    """Store the answers to `selection`, `test` and the validation slice, and to `transfer` as labels to train on.

    Args:
        prompt: the prompt by which the model answers. If None, its head `lm_choice` chooses among the candidates.
        start: weights file that replaces the weights selected by `--weights`.
    """
    split, head = context.split, _model(context, start)
    recorder.weak_labels(_answers(head, context, prompt, split.transfer + split.transfer_validation))
    recorder.predictions("validation", _answers(head, context, prompt, split.transfer_validation))
    for part in ("selection", "test"):
        recorder.predictions(part, _answers(head, context, prompt, split.parts()[part]))
    return head


def best_prompt(context: Context[Config], recorder: Recorder) -> Prompt:
    """Return the task's prompt whose answers to `supervision` are most accurate; on a tie, the first of them."""
    head, split = _model(context), context.split
    examples = split.supervision + split.supervision_validation
    answers = {name: _answers(head, context, prompt, examples) for name, prompt in context.task.prompts.items()}
    accuracies = ground_truth.supervision_accuracies(context, answers, recorder)
    name = max(accuracies, key=accuracies.__getitem__)
    recorder.metrics({f"prompt/{name}_accuracy": accuracy for name, accuracy in accuracies.items()})
    recorder.tags[CHOSEN] = name
    return context.task.prompts[name]


def _model(context: Context[Config], start: Path | None = None) -> Head:
    return finetune.build_head(context, pretrained=context.options.weights == "pretrained", start=start)


def _answers(head: Head, context: Context[Config], prompt: Prompt | None, examples: Sequence[Example]) -> Predictions:
    from w2s_mlflow.modeling import elicitation

    options = context.options
    if prompt is None:
        return finetune.predictions(head, examples, options)
    model = elicitation.Continuations(head.model, head.tokenizer, options.max_length)
    answers_NC = elicitation.probabilities(model, prompt, examples, options.micro_batch, options.dtype)
    return finetune.predict_table(examples, answers_NC)
