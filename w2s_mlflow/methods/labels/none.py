"""Control: the student is not trained, and answers by a prompt of the task (`--prompt`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from w2s_mlflow.methods.labels import NOBODY, _prompts
from w2s_mlflow.methods.labels._prompts import PromptOptions as Options

if TYPE_CHECKING:
    from w2s_mlflow.pipeline.context import Context
    from w2s_mlflow.tasks import Prompt, Task
    from w2s_mlflow.tracking.recorder import Recorder

__all__ = ["Options"]

LABELLER, GOLD = NOBODY, False
NOTE = "not finetuned"


def resolve(options: Options, task: Task, head: str) -> Options:
    """Return the options with the name of the prompt. The head `lm_choice` needs no prompt."""
    if head == "lm_choice" and options.prompt is None:
        return options
    _prompts.check_declared(task, "none", "prompts")
    return _prompts.named(options, task.prompts)


def labels(weak: None, context: Context[Any], options: Options, recorder: Recorder) -> Prompt | None:
    """Return the prompt, so that the student is not trained; None if its head answers without a prompt."""
    return None if options.prompt is None else context.task.prompts[options.prompt]
