"""Choice of the prompt by which a model that is not trained answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from w2s_mlflow import tasks
from w2s_mlflow.config import checked_dataclass, option
from w2s_mlflow.exceptions import must, unknown
from w2s_mlflow.tasks import Prompt, Task


@checked_dataclass
class PromptOptions:
    """Options of the kinds of labels for which the model answers by a prompt."""

    prompt: str | None = option(default=None, introduced=None)
    """Name of the task's prompt with which an untrained model answers. Default: the first prompt of the task. With --labels
    none and --head lm_choice, the default is no prompt: the head chooses among the candidates."""


def named(options: PromptOptions, declared: Mapping[str, Prompt]) -> PromptOptions:
    """Return the options with the name of a declared prompt: the given one or, by default, the first.

    Raises ConfigError if no prompt of that name is declared.
    """
    if options.prompt is not None and options.prompt not in declared:
        raise unknown("--prompt", options.prompt, declared)
    return replace(options, prompt=options.prompt or next(iter(declared)))


def check_declared(task: Task, labels: str, attribute: str) -> None:
    """Raise ConfigError if the task declares no prompts (`attribute` is "prompts") or no planners ("planners")."""
    if not getattr(task, attribute):
        legal = ", ".join(other.name for other in tasks.all_tasks() if getattr(other, attribute)) or "none so far"
        raise must("task", f"a task with {attribute} ({legal}) for --labels {labels}", task.name)
