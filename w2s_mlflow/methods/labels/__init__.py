"""Kinds of labels that a student can be trained on, one per file; `--labels NAME` selects a file.

Every file has a frozen dataclass `Options` (NoOptions if the kind has none), the constants below, and a function that makes the
labels.

The function is `labels(weak, context, options, recorder) -> SoftLabels | None`. Its argument `weak` has the labels that the run
described by LABELLER gives to `transfer` and to the validation slice of `transfer`. The student is trained only on the rows of
`transfer` that have a label in the result. If the result is a Prompt, the student is not trained, but answers by the prompt;
if it is None, the student is not trained, and its head answers.

A file may have a function `resolve(options, task, head) -> Options`, which fills in defaults that depend on the task and the
head, and raises ConfigError for illegal values.

A file may also have a function `epochs(context, options) -> int`, which returns the number of epochs to train. Without it, the
option --epochs holds. It raises ConfigError for options that the task's rows do not allow.

Constants:
    LABELLER: the run that labels `transfer`. `supervisor`: the weak supervisor; `zero_shot`: the student's strong model before
        any finetuning (method `zero_shot`); `debate`: a debate run whose protocol has the name of the file; `none`: no run, and
        `weak` is None.
    GOLD: whether the labels depend on the ground truth of `transfer`. Such students are controls, tagged `w2s.gold`.
    NOTE: phrase for the description of a student's run. It is followed by a link to the run that labels `transfer`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any

from w2s_mlflow import registry
from w2s_mlflow.config import checked_dataclass

if TYPE_CHECKING:
    from w2s_mlflow.pipeline.context import Context
    from w2s_mlflow.records import SoftLabels
    from w2s_mlflow.tasks import Task
    from w2s_mlflow.tracking.recorder import Recorder

SUPERVISOR, ZERO_SHOT, DEBATE, NOBODY = "supervisor", "zero_shot", "debate", "none"


@checked_dataclass
class NoOptions:
    """Options of a kind of labels that has no options."""


def unchanged(weak: SoftLabels, context: Context[Any], options: NoOptions, recorder: Recorder) -> SoftLabels:
    """Return the labels of the run that labels `transfer`. Kinds of labels that differ only in this run use this function."""
    return weak


def source(name: str) -> ModuleType:
    """Return the module of a kind of labels. Raises ConfigError for an unknown name."""
    return registry.plugin("methods.labels", name, "--labels")


def epochs(name: str, context: Context[Any]) -> int:
    """Return the number of epochs for which a student of this kind of labels is trained.

    Raises:
        ConfigError: the options of the kind of labels do not fit the task's rows.
    """
    options, module = context.options, source(name)
    if not hasattr(module, "epochs"):
        return int(options.epochs)
    return int(module.epochs(context, module.Options(**options.label_options)))


def resolved(name: str, options: Mapping[str, Any], task: Task, head: str) -> dict[str, Any]:
    """Return the options of a kind of labels with its defaults filled in. Raises ConfigError for illegal values."""
    module = source(name)
    chosen = module.Options(**options)
    return dict(vars(module.resolve(chosen, task, head) if hasattr(module, "resolve") else chosen))


def names(labeller: str | None = None) -> tuple[str, ...]:
    """Return the names of all kinds of labels, or, if `labeller` is given, only of those with this LABELLER."""
    every = registry.plugins("methods.labels")
    return tuple(name for name in every if labeller is None or labeller == source(name).LABELLER)
