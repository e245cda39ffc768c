"""Control: the student is not trained, and answers by the task's prompt that is most accurate on the gold of `supervision`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from w2s_mlflow.methods import elicitation
from w2s_mlflow.methods.labels import NOBODY, _prompts
from w2s_mlflow.methods.labels import NoOptions as Options

if TYPE_CHECKING:
    from w2s_mlflow.pipeline.context import Context
    from w2s_mlflow.tasks import Prompt, Task
    from w2s_mlflow.tracking.recorder import Recorder

__all__ = ["Options"]

LABELLER, GOLD = NOBODY, False
NOTE = "not finetuned, by the prompt that is most accurate on the ground truth of `supervision`"


def resolve(options: Options, task: Task, head: str) -> Options:
    """Check that the task declares prompts."""
    _prompts.check_declared(task, "best_prompt", "prompts")
    return options


def labels(weak: None, context: Context[Any], options: Options, recorder: Recorder) -> Prompt:
    """Return the best prompt, so that the student is not trained."""
    return elicitation.best_prompt(context, recorder)
