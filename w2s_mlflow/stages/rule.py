"""Score a one-line heuristic of the task as a control, with the metrics of a student. No model is used."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from w2s_mlflow import tasks
from w2s_mlflow.config import checked_dataclass, option
from w2s_mlflow.data import loading
from w2s_mlflow.data.loading import mirror
from w2s_mlflow.data.splits import Split
from w2s_mlflow.exceptions import unknown
from w2s_mlflow.pipeline import finetune, runs, scoring
from w2s_mlflow.pipeline.options import NONE, EvalConfig

if TYPE_CHECKING:
    from w2s_mlflow.tracking.recorder import Recorder
    from w2s_mlflow.tracking.results import Result

VERSION = 1


@checked_dataclass
class Config(EvalConfig):
    """Options of the `rule` stage."""

    task: str = option(default="chess", lookup=tasks.find)
    """Task to apply the rule to."""
    rule: str = "random"
    """Rule to score, as named by the task."""
    train_size: int | None = option(default=None, ge=1)
    """Number of training rows in the split; no rule uses them. Default: set by the task."""
    test_size: int | None = option(default=None, ge=1)
    """Maximum number of test rows. Default: set by the task."""
    balance: bool = False
    """Whether to balance the classes of selection and test."""
    data_dir: str | None = option(default=None, result=False)
    """Mirror of public data sets. Default: W2S_DATA_DIR, else the hub."""

    seed: ClassVar[int] = 0

    def __post_init__(self) -> None:
        if self.rule not in tasks.find(self.task).rules:
            raise unknown("--rule", self.rule, tasks.find(self.task).rules)

    def resolved(self) -> Config:
        """Return the options with the data mirror filled in."""
        return replace(self, data_dir=mirror(self.data_dir))


def run(config: Config) -> Result:
    """Find or make the rule's run. Raises ConfigError before anything is written."""
    from w2s_mlflow.tracking import fingerprint, source

    task = tasks.find(config.task)
    config, cut = loading.resolve_and_split(config.resolved())
    parts = fingerprint.FingerprintParts(
        stage="rule",
        version=VERSION,
        options=runs.result_options(config),
        data=cut.digest,
        inputs={},
        libraries={},
        source=source.digests(["stages.rule:_make", "data.loading:resolve_and_split", f"tasks.{task.family}"]),
    )
    labels = {"weak": NONE, "strong": NONE, "method": f"rule:{config.rule}", "seed": NONE}
    note = f"The one-line rule `{config.rule}` on `{config.task}`: what a student must beat to have learned more."
    found = runs.produce(parts, config, cut, labels, note, lambda recorder: _make(config, cut, recorder))
    return scoring.report(found, config, cut)


def _make(config: Config, cut: Split, recorder: Recorder) -> None:
    rule, classes = tasks.find(config.task).rules[config.rule], tasks.find(config.task).classes
    for part in ("selection", "test"):
        examples = cut.parts()[part]
        chosen_N = np.array([rule(example) for example in examples], dtype=np.int64)
        recorder.predictions(part, finetune.predict_table(examples, np.eye(classes, dtype=np.float32)[chosen_N]))
