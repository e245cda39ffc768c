"""Score a one-line rule of the task as a control, with the metrics of a student. No model is used."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from w2s_mlflow.config import checked_dataclass
from w2s_mlflow.exceptions import unknown
from w2s_mlflow.pipeline import finetune, runs, scoring
from w2s_mlflow.pipeline.context import Context, resolve
from w2s_mlflow.pipeline.options import NONE, EvalConfig, TaskOptions

if TYPE_CHECKING:
    from w2s_mlflow.tracking.recorder import Recorder
    from w2s_mlflow.tracking.results import Result

VERSION = 1


@checked_dataclass
class Config(EvalConfig, TaskOptions):
    """Options of the `rule` stage."""

    rule: str = "random"
    """Name of the rule to score, one of the task's rules."""

    seed: ClassVar[int] = 0

    def __post_init__(self) -> None:
        if self.rule not in (rules := self.find_task().rules):
            raise unknown("--rule", self.rule, rules)


def run(config: Config) -> Result:
    """Reuse a finished run of the rule, or score the rule in a new run.

    Raises ConfigError for invalid options, before anything is written.
    """
    from w2s_mlflow.tracking import fingerprint, source

    context = resolve(config)
    parts = fingerprint.FingerprintParts(
        stage="rule",
        version=VERSION,
        options=runs.result_options(context),
        data=context.split.digest,
        inputs={},
        libraries={},
        source=source.digests(["stages.rule:_make", "data.loading:resolve_and_split", f"tasks.{context.task.family}"]),
    )
    identity = context.names() | {"method": f"rule:{config.rule}", "seed": NONE}
    note = f"The one-line rule `{config.rule}` on `{config.task}`, a control without a model."
    rule = runs.produce(parts, context, identity, note, lambda recorder: _make(context, recorder))
    return scoring.report(rule, context)


def _make(context: Context[Config], recorder: Recorder) -> None:
    rule = context.task.rules[context.options.rule]
    for part in ("selection", "test"):
        examples = context.split.parts()[part]
        chosen_N = np.array([rule(example) for example in examples], dtype=np.int64)
        one_hot_NC = np.eye(context.task.classes, dtype=np.float32)[chosen_N]
        recorder.predictions(part, finetune.predict_table(examples, one_hot_NC))
