"""Control: the student is not trained, and answers by a planner of the task, which adds rules of the task to its answers."""

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
NOTE = "not finetuned, as the model of a planner that is given rules of the task"


def resolve(options: Options, task: Task, head: str) -> Options:
    """Return the options with the name of the planner."""
    _prompts.check_declared(task, "planner", "planners")
    return _prompts.named(options, task.planners)


def labels(weak: None, context: Context[Any], options: Options, recorder: Recorder) -> Prompt:
    """Return the planner, so that the student is not trained."""
    assert options.prompt is not None
    return context.task.planners[options.prompt]
