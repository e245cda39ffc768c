"""What is learned: one family of tasks per file, each exporting `TASKS`. Tasks emit text; tokenizers travel with models."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from w2s_mlflow import config
from w2s_mlflow.records import Example, Row, Rows

__all__ = ["HEADS", "Row", "Rows", "Task", "find"]

HEADS = ("choose", "classify", "compare")
"""How a model may answer a task (heads.py)."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """One task: where its rows come from and how a model answers."""

    name: str
    family: str
    """The plug-in file, `tasks/<family>.py`: the task's root in a fingerprint."""
    head: str
    """How a model answers by default: choose, classify or compare (see heads.py)."""
    classes: int
    load: Callable[[], Rows]
    rules: Mapping[str, Callable[[Example], int]] = field(default_factory=dict)
    """One-line rules that need no model, each from an example to the class it chooses: rows of the controls."""
    train_size: int
    """Rows of D that a seed draws, supervision and transfer together."""
    test_size: int
    source: str
    license: str
    human_score: float | None = None
    """The published human accuracy S_H (Definitions 1-2), where there is one."""


def find(name: str) -> Task:
    """The task called `name`. Raises ConfigError with the nearest name and the list."""
    known = {task.name: task for family in config.plugins("tasks") for task in _family(family)}
    if name not in known:
        raise config.unknown("--task", name, known)
    return known[name]


def _family(name: str) -> tuple[Task, ...]:
    tasks: tuple[Task, ...] = config.plugin("tasks", name, "--task").TASKS
    return tasks
