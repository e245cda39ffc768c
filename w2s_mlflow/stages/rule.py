"""Score a one-line rule of the task as a control, with the metrics of a student. No model is used.

A rule that the task declares is the same for every seed. For a searched rule, such as `searched_rule`, the best rule over the
task's features is found on the ground truth of `supervision` (pipeline/searched_rule.py). It is a control for shortcuts that a
supervisor could have learned from the same labels.

A rule can also take the place of the supervisor (`student --weak rule:NAME`). The supervisor's errors then follow a rule that
a student can learn. `supervise` makes the supervisor's run: its labels on `transfer` are the rule's answers, as one-hot labels.

Metrics of a searched rule: `search/<family>_accuracy`, the cross-validated accuracies on `supervision`. Its tag `w2s.rule`
describes the rule that was found.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from w2s_mlflow.config import checked_dataclass, option
from w2s_mlflow.exceptions import unknown
from w2s_mlflow.pipeline import finetune, ground_truth, runs, scoring, searched_rule
from w2s_mlflow.pipeline.context import Context, resolve
from w2s_mlflow.pipeline.options import NONE, RULE, EvalConfig, TaskOptions, rule_name
from w2s_mlflow.records import Example, Ints, Predictions

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from w2s_mlflow.tracking.fingerprint import FingerprintParts
    from w2s_mlflow.tracking.recorder import Recorder
    from w2s_mlflow.tracking.results import Result

    Choice = Callable[[Sequence[Example]], Ints]
    """Function that returns the class that a rule chooses for each example."""

VERSION = 1
FOUND = "w2s.rule"
"""Tag with a description of the rule that a search has found."""


@checked_dataclass
class Config(EvalConfig, TaskOptions):
    """Options of the `rule` stage."""

    rule: str = "random"
    """Name of the rule to score: one of the task's rules, or the name of a list of features over which a rule is searched."""
    seed: int = option(default=0, introduced=0, ge=0, lt=2**32)
    """Random seed of the split and the cross-validation folds of a searched rule. Other rules ignore it."""

    def __post_init__(self) -> None:
        task = self.find_task()
        if self.rule not in (rules := (*task.rules, *task.features)):
            raise unknown("--rule", self.rule, rules)
        if self.rule not in task.features:
            object.__setattr__(self, "seed", 0)  # so that a rule without a search is scored once


def run(config: Config) -> Result:
    """Reuse a finished run of the rule, or score the rule in a new run.

    Raises ConfigError for invalid options, before anything is written.
    """
    context, name = resolve(config), config.rule
    is_searched = name in context.task.features
    identity = context.names() | {"method": f"rule:{name}", "seed": str(config.seed) if is_searched else NONE}
    what = "best rule over a list of features, found on the ground truth of `supervision`" if is_searched else "one-line rule"
    note = f"The {what} (`{name}`) on `{config.task}`, a control without a model."

    def make(recorder: Recorder) -> None:
        _record_heldout(_chooser(name, context, recorder), context, recorder)

    parts = _parts("rule", name, context)
    return scoring.report(runs.produce(parts, context, identity, note, make), context)


@checked_dataclass
class SupervisorConfig(EvalConfig, TaskOptions):
    """Options of a rule that takes the place of the supervisor."""

    weak: str = f"{RULE}random"
    """The rule, as `rule:NAME`."""
    seed: int = option(default=0, ge=0, lt=2**32)
    """Random seed for splitting the training rows."""


def supervise(config: SupervisorConfig) -> Result:
    """Find or make the run of a rule that takes the place of the supervisor; its stage is `supervisor`."""
    context, name = resolve(config), str(rule_name(config.weak))
    note = f"`{config.weak}`, a rule of `{config.task}` without a model, in place of a supervisor; it labels `transfer`."

    def make(recorder: Recorder) -> None:
        ground_truth.record_rows(context, recorder)
        choose = _chooser(name, context, recorder)
        recorder.weak_labels(_answers(choose, context, context.split.transfer + context.split.transfer_validation))
        _record_heldout(choose, context, recorder)

    identity, parts = context.names() | {"method": "supervisor"}, _parts("supervisor", name, context)
    return scoring.report(runs.produce(parts, context, identity, note, make), context)


def _parts(stage: str, rule: str, context: Context[Any]) -> FingerprintParts:
    """Return the parts of the fingerprint of a rule's run."""
    from w2s_mlflow.tracking import fingerprint, source

    is_searched = rule in context.task.features
    roots = ["data.loading:resolve_and_split", f"tasks.{context.task.family}", "stages.rule:_record_heldout"]
    return fingerprint.FingerprintParts(
        stage=stage,
        version=VERSION,
        options=runs.result_options(context),
        data=context.split.digest,
        inputs={},
        libraries={"scikit-learn": fingerprint.version("scikit-learn")} if is_searched else {},
        source=source.digests([*roots, f"stages.rule:{'_searched' if is_searched else '_declared'}"]),
    )


def _chooser(rule: str, context: Context[Any], recorder: Recorder) -> Choice:
    """Return the function by which a rule of the task answers examples. A searched rule is searched first."""
    is_searched = rule in context.task.features
    return _searched(rule, context, recorder) if is_searched else _declared(rule, context)


def _declared(rule: str, context: Context[Any]) -> Choice:
    choose = context.task.rules[rule]
    return lambda examples: np.array([choose(example) for example in examples], dtype=np.int64)


def _searched(rule: str, context: Context[Any], recorder: Recorder) -> Choice:
    features, split = context.task.features[rule], context.split
    examples = split.supervision + split.supervision_validation
    gold_N = ground_truth.supervision_labels(context, "rule", recorder)
    groups, values = [example.group for example in examples], searched_rule.features_of(examples, features)
    found = searched_rule.search(values, gold_N, groups, list(features), context.options.seed)
    recorder.metrics({f"search/{family}_accuracy": accuracy for family, accuracy in found.accuracies.items()})
    recorder.tags[FOUND] = found.rule.description
    return lambda examples: found.rule.choose(searched_rule.features_of(examples, features))


def _record_heldout(choose: Choice, context: Context[Any], recorder: Recorder) -> None:
    for part in ("selection", "test"):
        recorder.predictions(part, _answers(choose, context, context.split.parts()[part]))


def _answers(choose: Choice, context: Context[Any], examples: Sequence[Example]) -> Predictions:
    """Return the answers of a rule as one-hot probabilities."""
    return finetune.predict_table(examples, np.eye(context.task.classes, dtype=np.float32)[choose(examples)])
