"""Labels that a student is trained on, `--labels NAME`: one kind per file.

Every file has a frozen `Options`, which may be `NoOptions`, the constants below, and a function that makes the labels:

`labels(weak, context, options, recorder) -> SoftLabels | None`, where `weak` holds the labels of the run that `LABELLER` names
for all rows of `transfer` and its validation slice. Rows of `transfer` that the result leaves out are not trained on. None
stands for no training at all.

Constants:
    LABELLER: the run that labels `transfer`. `supervisor`: the weak supervisor; `debate`: a debate run whose protocol has the
        name of the file; `none`: no run, and `weak` is None.
    GOLD: whether the labels depend on the ground truth of `transfer`. Such students are controls, tagged `w2s.gold`.
    NOTE: phrase for the note of a student's run, followed by the link to the run that labels `transfer`.
"""

from __future__ import annotations

from types import ModuleType

from w2s_mlflow import registry
from w2s_mlflow.config import checked_dataclass

SUPERVISOR, DEBATE, NOBODY = "supervisor", "debate", "none"


@checked_dataclass
class NoOptions:
    """Options of labels that have none."""


def source(name: str) -> ModuleType:
    """Return the file of one kind of labels. Raises ConfigError if there is none."""
    return registry.plugin("methods.labels", name, "--labels")


def names(labeller: str | None = None) -> tuple[str, ...]:
    """Return the kinds of labels; with `labeller`, those with this LABELLER."""
    every = registry.plugins("methods.labels")
    return tuple(name for name in every if labeller is None or labeller == source(name).LABELLER)
