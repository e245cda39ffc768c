"""Score a one-line rule of the task as a control, with the metrics of a student. No model is used.

A rule that the task declares is the same for every seed. For a searched rule, such as `searched_rule`, the best rule over the
task's features is found on the ground truth of `supervision` (pipeline/searched_rule.py). It is a control for shortcuts that a
supervisor could have learned from the same labels.

Metrics of a searched rule: `search/<family>_accuracy`, the cross-validated accuracies on `supervision`. Its tag `w2s.rule`
describes the rule that was found.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from w2s_mlflow.config import checked_dataclass, option
from w2s_mlflow.exceptions import unknown
from w2s_mlflow.pipeline import finetune, ground_truth, runs, scoring, searched_rule
from w2s_mlflow.pipeline.context import Context, resolve
from w2s_mlflow.pipeline.options import NONE, EvalConfig, TaskOptions
from w2s_mlflow.records import Example, Floats, Ints

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from w2s_mlflow.tracking.recorder import Recorder
    from w2s_mlflow.tracking.results import Result

VERSION = 1
FOUND = "w2s.rule"
"""Tag with a description of the rule that a search has found."""


@checked_dataclass
class Config(EvalConfig, TaskOptions):
    """Options of the `rule` stage."""

    rule: str = "random"
    """Name of the rule to score: one of the task's rules, or the name of a list of features over which a rule is searched."""
    seed: int = option(default=0, ge=0, lt=2**32)
    """Random seed of a searched rule: it determines `supervision` and the folds. Other rules are the same for every seed."""

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
    from w2s_mlflow.tracking import fingerprint, source

    context = resolve(config)
    is_searched = config.rule in context.task.features
    roots = ["data.loading:resolve_and_split", f"tasks.{context.task.family}"]
    parts = fingerprint.FingerprintParts(
        stage="rule",
        version=VERSION,
        options=runs.result_options(context),
        data=context.split.digest,
        inputs={},
        libraries={"scikit-learn": fingerprint.version("scikit-learn")} if is_searched else {},
        source=source.digests([*roots, f"stages.rule:{'_search' if is_searched else '_make'}"]),
    )
    identity = context.names() | {"method": f"rule:{config.rule}", "seed": str(config.seed) if is_searched else NONE}
    what = "best rule over a list of features, found on the ground truth of `supervision`" if is_searched else "one-line rule"
    note = f"The {what} (`{config.rule}`) on `{config.task}`, a control without a model."
    make = _search if is_searched else _make
    return scoring.report(runs.produce(parts, context, identity, note, lambda recorder: make(context, recorder)), context)


def _make(context: Context[Config], recorder: Recorder) -> None:
    rule = context.task.rules[context.options.rule]
    _record(context, lambda examples: np.array([rule(example) for example in examples], dtype=np.int64), recorder)


def _search(context: Context[Config], recorder: Recorder) -> None:
    features, split = context.task.features[context.options.rule], context.split
    examples = split.supervision + split.supervision_validation
    gold_N = ground_truth.supervision_labels(context, "rule", recorder)
    groups, values = [example.group for example in examples], searched_rule.features_of(examples, features)
    found = searched_rule.search(values, gold_N, groups, list(features), context.options.seed)
    recorder.metrics({f"search/{family}_accuracy": accuracy for family, accuracy in found.accuracies.items()})
    recorder.tags[FOUND] = found.rule.description
    _record(context, lambda examples: found.rule.choose(searched_rule.features_of(examples, features)), recorder)


def _record(context: Context[Config], choose: Callable[[Sequence[Example]], Ints], recorder: Recorder) -> None:
    for part in ("selection", "test"):
        examples = context.split.parts()[part]
        one_hot_NC: Floats = np.eye(context.task.classes, dtype=np.float32)[choose(examples)]
        recorder.predictions(part, finetune.predict_table(examples, one_hot_NC))
