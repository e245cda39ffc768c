"""Score a one-line rule of the task as a control, with the metrics of a student. No model is used.

A rule can also take the place of the supervisor (`student --weak rule:NAME`). The supervisor's errors then follow a rule that
a student can learn. `supervise` makes the supervisor's run: its labels on `transfer` are the rule's answers, as one-hot labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from w2s_mlflow.config import checked_dataclass, option
from w2s_mlflow.exceptions import unknown
from w2s_mlflow.pipeline import finetune, ground_truth, runs, scoring
from w2s_mlflow.pipeline.context import Context, resolve
from w2s_mlflow.pipeline.options import NONE, RULE, EvalConfig, TaskOptions, rule_name
from w2s_mlflow.records import Example, Predictions

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


@checked_dataclass
class SupervisorConfig(EvalConfig, TaskOptions):
    """Options of a rule that takes the place of the supervisor."""

    weak: str = f"{RULE}random"
    """The rule, as `rule:NAME`."""
    seed: int = option(default=0, ge=0, lt=2**32)
    """Random seed for splitting the training rows."""


def supervise(config: SupervisorConfig) -> Result:
    """Find or make the run of a rule that takes the place of the supervisor; its stage is `supervisor`."""
    from w2s_mlflow.tracking import fingerprint, source

    context = resolve(config)
    parts = fingerprint.FingerprintParts(
        stage="supervisor",
        version=VERSION,
        options=runs.result_options(context),
        data=context.split.digest,
        inputs={},
        libraries={},
        source=source.digests(["stages.rule:_label", "data.loading:resolve_and_split", f"tasks.{context.task.family}"]),
    )
    identity = context.names() | {"method": "supervisor"}
    note = f"`{config.weak}`, a rule of `{config.task}` without a model, in place of a supervisor; it labels `transfer`."
    return scoring.report(runs.produce(parts, context, identity, note, lambda recorder: _label(context, recorder)), context)


def _label(context: Context[SupervisorConfig], recorder: Recorder) -> None:
    ground_truth.record_rows(context, recorder)
    rule = str(rule_name(context.options.weak))
    recorder.weak_labels(_answers(rule, context, context.split.transfer + context.split.transfer_validation))
    _record_heldout(rule, context, recorder)


def _make(context: Context[Config], recorder: Recorder) -> None:
    _record_heldout(context.options.rule, context, recorder)


def _record_heldout(rule: str, context: Context[Any], recorder: Recorder) -> None:
    for part in ("selection", "test"):
        recorder.predictions(part, _answers(rule, context, context.split.parts()[part]))


def _answers(rule: str, context: Context[Any], examples: Sequence[Example]) -> Predictions:
    """Return the answers of a rule of the task as one-hot probabilities."""
    answer_N = np.array([context.task.rules[rule](example) for example in examples], dtype=np.int64)
    return finetune.predict_table(examples, np.eye(context.task.classes, dtype=np.float32)[answer_N])
