"""Tasks. Each plug-in file declares one family of tasks and exports it as `TASKS`. Tasks provide text, which models tokenize.

A family may also export `FILES`, which maps a prefix to a function that builds a task from the path of a user's file. The
prefix `file`, for example, allows `--task file:PATH`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from w2s_mlflow import exceptions, registry
from w2s_mlflow.records import Example, Row, Rows
from w2s_mlflow.tasks._prompts import LIKELIHOOD, Prompt, Query

__all__ = ["HEADS", "Human", "NotFoundError", "Prompt", "Query", "Row", "Rows", "Task", "all_tasks", "find", "prefixes"]

HEADS = ("lm_choice", "classification", "reward")
"""Names of the heads with which a model can answer a task (modeling/heads.py)."""
FORMER_HEADS = {"choose": "lm_choice", "classify": "classification", "compare": "reward"}
"""Present names of the heads that were renamed after version 0.1. The keys are their names in version 0.1."""


class NotFoundError(exceptions.ConfigError):
    """Raised if a task's rows are found neither in the local mirror, nor on the Hugging Face hub, nor in the hub's cache."""


@dataclass(frozen=True)
class Human:
    """Published human score between 0 and 1, its metric and its source. It is S_H in the paper's Definitions 1 and 2."""

    score: float
    metric: str
    source: str


@dataclass(frozen=True, kw_only=True)
class Task:
    """Declaration of one task: where its rows come from, how a model answers it, and the default sizes of its splits."""

    name: str
    family: str
    """Name of the plug-in file `tasks/<family>.py` that declares the task. Its source code enters the fingerprints of runs."""
    head: str
    """Default head: `lm_choice`, `classification` or `reward` (see modeling/heads.py)."""
    other_heads: tuple[str, ...] = ()
    """Other heads that can answer the task, if its default head is `reward`. Other tasks allow all heads but `reward`."""
    classes: int
    load: Callable[[Path | None], Rows]
    """Function that loads the rows. Its argument is the directory of the local mirror, or None to use only the hub."""
    rules: Mapping[str, Callable[[Example], int]] = field(default_factory=dict)
    """Simple rules, by name. A rule predicts the class without a model. The stage `rule` scores the rules as controls."""
    features: Mapping[str, Mapping[str, Callable[[Example, str], float]]] = field(default_factory=dict)
    """Lists of features of a candidate, by the name of the rule that the stage `rule` searches over them (`searched_rule`,
    ...). A feature is a function of the example and one of its two candidates."""
    prompts: Mapping[str, Prompt] = field(default_factory=dict)
    """Prompts, by name, with which a language model answers without labels and without training; the first is the default.
    If there are none and the head is `reward`, the task has the prompt `likelihood`."""
    planners: Mapping[str, Prompt] = field(default_factory=dict)
    """Planners, by name: prompts that add knowledge of the task to the model's answers. They are reported apart."""
    train_size: int
    """Default number of rows that a split divides between `supervision` and `transfer`. If there are fewer, all are used."""
    test_size: int
    """Default number of test rows. If there are fewer, all are used."""
    positive: str
    """Meaning of label 1."""
    source: str
    """Source of the rows: a hub id with its configuration and revision, a file name, or the command that generated them."""
    license: str
    human: Human | None = None
    """Published human score, if any."""
    key: str = ""
    """Name that enters the hashes behind splits: the task's name, or that of the user's file without directory and suffix."""

    @property
    def heads(self) -> tuple[str, ...]:
        """All heads that can answer the task, the default head first."""
        return (self.head, *(self.other_heads if self.head == "reward" else {"lm_choice", "classification"} - {self.head}))

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", self.key or self.name)
        object.__setattr__(self, "head", FORMER_HEADS.get(self.head, self.head))
        if not self.prompts and self.head == "reward":
            object.__setattr__(self, "prompts", {"likelihood": LIKELIHOOD})


def find(name: str, option: str = "task") -> Task:
    """Return the task called `name`. If `name` has the form `PREFIX:PATH`, the task is built from a user's file.

    Raises:
        ConfigError: the task does not exist; the message suggests the nearest name and lists all names.
    """
    prefix, colon, path = name.partition(":")
    if colon and prefix in prefixes():
        return prefixes()[prefix](path)
    if name not in (known := _task_by_name()):
        raise exceptions.unknown(exceptions.flag(option), name, (*known, *(f"{prefix}:PATH" for prefix in prefixes())))
    return known[name]


@functools.cache
def _task_by_name() -> dict[str, Task]:
    return {task.name: task for task in all_tasks()}


def all_tasks() -> Iterator[Task]:
    """Yield all named tasks, family by family."""
    for family in registry.plugins("tasks"):
        yield from registry.plugin("tasks", family, "--task").TASKS


@functools.cache
def prefixes() -> dict[str, Callable[[str], Task]]:
    """Return the functions that build a task from a user's file. The keys are the prefixes of task names such as
    `file:PATH`."""
    families = (registry.plugin("tasks", family, "--task") for family in registry.plugins("tasks"))
    return {prefix: make for family in families for prefix, make in getattr(family, "FILES", {}).items()}
