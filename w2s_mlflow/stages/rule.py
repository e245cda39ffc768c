"""A control: a one-line rule of the task, scored on `test` like a student. It sees examples and no model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from w2s_mlflow import config as options
from w2s_mlflow import tasks
from w2s_mlflow.config import must, unknown
from w2s_mlflow.split import Split
from w2s_mlflow.stages import _finetune
from w2s_mlflow.stages._options import NONE

if TYPE_CHECKING:
    from w2s_mlflow.tracking.store import Recorder, Result

VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Config:
    """One rule on one task."""

    task: str = "chess"
    """What the rule answers."""
    rule: str = "random"
    """The rule, one of those that the task lists."""
    train_size: int | None = None
    """Rows of the training part that the split sets aside; a rule looks at none of them. none takes the task's own."""
    test_size: int | None = None
    """At most so many test rows; none takes the task's own."""

    seed: ClassVar[int] = 0

    def __post_init__(self) -> None:
        if self.rule not in tasks.find(self.task).rules:
            raise unknown("--rule", self.rule, tasks.find(self.task).rules)
        for name in ("train_size", "test_size"):
            if (size := getattr(self, name)) is not None and size < 1:
                raise must(name, "at least 1", size)

    def resolved(self) -> Config:
        """The same with every `none` replaced by what the task says."""
        task = tasks.find(self.task)
        train_size, test_size = self.train_size or task.train_size, self.test_size or task.test_size
        return replace(self, train_size=train_size, test_size=test_size)


def run(config: Config) -> Result:
    """The rule's run, found or made. Raises ConfigError before anything is written."""
    from w2s_mlflow.tracking import fingerprint

    task = tasks.find(config.task)
    config = config.resolved()
    cut = _finetune.cut(config)
    parts = fingerprint.Parts(
        stage="rule",
        version=VERSION,
        options=options.result_options(config),
        data=cut.digest,
        inputs={},
        libraries={},
        source=fingerprint.source(["split", "records", f"tasks.{task.family}"]),
    )
    labels = {"weak": NONE, "strong": NONE, "method": f"rule:{config.rule}", "seed": NONE}
    note = f"The one-line rule `{config.rule}` on `{config.task}`: what a student must beat to have learned more."
    return _finetune.produce(parts, config, cut, labels, note, lambda recorder: _make(config, cut, recorder))


def _make(config: Config, cut: Split, recorder: Recorder) -> None:
    task = tasks.find(config.task)
    chosen_N = np.array([task.rules[config.rule](example) for example in cut.test], dtype=np.int64)
    certain_NC = np.eye(task.classes, dtype=np.float32)[chosen_N]
    _finetune.score_test(_finetune.predict_table(cut.test, certain_NC), cut, recorder)
