"""What is learned: one family of tasks per file, each exporting `TASKS`. Tasks emit text; tokenizers travel with models.

A family may also export `FILES`, from a prefix to a function of a path: `file:PATH` is a task of the user's own rows.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from w2s_mlflow import exceptions, registry
from w2s_mlflow.records import Example, Row, Rows

__all__ = ["HEADS", "Human", "NotFoundError", "Row", "Rows", "Task", "every", "find", "prefixes"]

HEADS = ("choose", "classify", "compare")
"""How a model may answer a task (modeling/heads.py)."""


class NotFoundError(exceptions.ConfigError):
    """The rows of a task are neither in the mirror nor on the hub or in its cache."""


@dataclass(frozen=True)
class Human:
    """The published human score S_H (Definitions 1-2): a fraction of 1, on the source's own metric, and where it stands."""

    score: float
    metric: str
    source: str


@dataclass(frozen=True, kw_only=True)
class Task:
    """One task: where its rows come from and how a model answers."""

    name: str
    family: str
    """The plug-in file, `tasks/<family>.py`: the task's root in a fingerprint."""
    head: str
    """How a model answers by default: choose, classify or compare (see modeling/heads.py)."""
    classes: int
    load: Callable[[Path | None], Rows]
    """The rows, from the hub or from the mirror whose directory is given."""
    rules: Mapping[str, Callable[[Example], int]] = field(default_factory=dict)
    """One-line rules that need no model, each from an example to the class it chooses: rows of the controls."""
    train_size: int
    """Rows of D that a seed draws, supervision and transfer together; fewer where the source has fewer."""
    test_size: int
    """Test rows; fewer where the source has fewer."""
    positive: str
    """What label 1 means."""
    source: str
    """Where the rows come from: a hub id with its configuration and revision, or a file."""
    license: str
    human: Human | None = None
    """The published human score, where there is one."""
    key: str = ""
    """What the cut hangs on beside ids and groups: the name, but of a file its stem, so that it may be moved."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", self.key or self.name)


def find(name: str, option: str = "task") -> Task:
    """The task called `name`, or the one of the user's own file, `PREFIX:PATH`.

    Raises:
        ConfigError: there is none; with the nearest name and the list.
    """
    prefix, colon, path = name.partition(":")
    if colon and prefix in prefixes():
        return prefixes()[prefix](path)
    if name not in (known := _named()):
        raise exceptions.unknown(exceptions.flag(option), name, (*known, *(f"{prefix}:PATH" for prefix in prefixes())))
    return known[name]


@functools.cache
def _named() -> dict[str, Task]:
    return {task.name: task for task in every()}


def every() -> Iterator[Task]:
    """All tasks that have a name, family by family."""
    for family in registry.plugins("tasks"):
        yield from registry.plugin("tasks", family, "--task").TASKS


@functools.cache
def prefixes() -> dict[str, Callable[[str], Task]]:
    """What makes a task of a user's file, by the prefix of its name."""
    families = (registry.plugin("tasks", family, "--task") for family in registry.plugins("tasks"))
    return {prefix: make for family in families for prefix, make in getattr(family, "FILES", {}).items()}
