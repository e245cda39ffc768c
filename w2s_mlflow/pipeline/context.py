"""Context of a run: the task, split and models that a stage's options name, resolved once when the stage starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, Protocol, Self, TypeVar

from w2s_mlflow import models
from w2s_mlflow.data import loading
from w2s_mlflow.data.loading import SplitOptions
from w2s_mlflow.data.splits import Split
from w2s_mlflow.models import ModelSpec
from w2s_mlflow.pipeline.options import GIVEN, NONE, RULE
from w2s_mlflow.tasks import Task

ROLES = ("weak", "strong")
"""Options that name a model."""


class StageOptions(SplitOptions, Protocol):
    """Options of a stage that works on the split of a task."""

    def resolved(self) -> Self:
        """Return the options with all defaults filled in except the sizes of the split."""


OptionsT = TypeVar("OptionsT", bound=StageOptions)
OptionsT_co = TypeVar("OptionsT_co", bound=StageOptions, covariant=True)


@dataclass(frozen=True)
class Context(Generic[OptionsT_co]):
    """Options of a stage, together with the task, split and models that the options name.

    Attributes:
        options: the options of the stage, with all defaults filled in.
        task: the task that the options name.
        split: the split of that task for the seed and sizes in the options, without labels.
        models: the models that the options name, by role (`weak` and `strong`).
    """

    options: OptionsT_co
    task: Task
    split: Split
    models: Mapping[str, ModelSpec]

    @property
    def model(self) -> ModelSpec:
        """The model to train, if the stage trains one."""
        return self.models[self.options.MODEL]  # type: ignore[attr-defined]

    def names(self) -> dict[str, str]:
        """Return the names of the weak and the strong model. The UI groups runs by these names.

        For a role without a model the name is NONE. If the weak labels come from a file or a rule, the name of the file or the
        rule takes the place of the weak model's name.
        """
        values = {role: vars(self.options).get(role, NONE) for role in ROLES}
        return values | {role: spec.name for role, spec in self.models.items()}


def resolve(options: OptionsT) -> Context[OptionsT]:
    """Return the context of a stage with these options.

    Raises:
        ConfigError: a task or model is not found, or the task has fewer rows than requested.
    """
    sized, split, task = loading.resolve_and_split(options.resolved())
    named = {role: vars(sized)[role] for role in ROLES if role in vars(sized)}
    given = {role: name for role, name in named.items() if not name.startswith((GIVEN, RULE))}
    specs = {role: models.find(name, role).for_seed(sized.seed) for role, name in given.items()}
    return Context(sized, task, split, specs)
