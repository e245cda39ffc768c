"""Finetune the weak model on the ground truth of `supervision`, and label `transfer` with it (Algorithm 2).

Metrics: per step, `train/loss` and `train/gradient_norm`; per epoch, `validation/agreement`, the agreement with the gold labels
of the validation slice of `supervision`; `train/accuracy`; `train/majority`, the share of the most frequent class;
`validation/temperature`, the temperature fitted on the validation slice (for `student --calibrate`); `test/accuracy` and the
other metrics of metrics.py, also as `validation/<name>`.
Artifacts: `labels/weak_labels.parquet`, the class probabilities on `transfer` and its validation slice;
`predictions/*.parquet`; `rows.parquet`, the digest of each row of the split; `figures/confidence_test.png`, a diagram of
confidence against accuracy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Self

from w2s_mlflow.config import checked_dataclass, inherited
from w2s_mlflow.pipeline import finetune, frozen, ground_truth, runs, scoring
from w2s_mlflow.pipeline.context import Context, resolve
from w2s_mlflow.pipeline.options import SupervisedTraining, TaskOptions, rule_name
from w2s_mlflow.stages import rule

if TYPE_CHECKING:
    from w2s_mlflow.modeling.heads import Head
    from w2s_mlflow.tracking.recorder import Recorder
    from w2s_mlflow.tracking.results import Result

VERSION = 2
LAUNCHED = True
"""Whether this stage supports distributed training (docs/how-to/launch.md)."""


@checked_dataclass
class Config(SupervisedTraining):
    """Options of a supervisor."""

    weak: str = "chess-60k"
    """Weak model to finetune on ground truth. `rule:NAME`: a rule of the task, which is not trained, takes its place."""

    MODEL: ClassVar[str] = "weak"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_weak(self.weak)

    def resolved(self) -> Self:
        """Return the options with the defaults of task and model filled in; a rule has none of a model."""
        return super().resolved() if rule_name(self.weak) is None else TaskOptions.resolved(self)


def run(config: Config) -> Result:
    """Find or train the supervisor. Raises ConfigError for invalid options, before anything is written."""
    if rule_name(config.weak) is not None:
        return rule.supervise(rule.SupervisorConfig(**inherited(rule.SupervisorConfig, config)))
    context = resolve(config)
    make, roots = (_make, ()) if config.freeze is None else (_make_frozen, frozen.ROOTS)
    definitions = [f"stages.supervisor:{make.__name__}", "losses.cross_entropy", *roots]
    parts = runs.parts("supervisor", VERSION, context, {}, definitions)
    names = context.names()
    note = f"`{names['weak']}` finetuned on the ground truth of `supervision` (Algorithm 2); it labels `transfer`."
    identity = names | {"method": "supervisor"}
    supervisor = runs.produce(parts, context, identity, note, lambda recorder: make(context, recorder))
    return scoring.report(supervisor, context)


def _make(context: Context[Config], recorder: Recorder) -> Head:
    ground_truth.record_rows(context, recorder)
    head = ground_truth.fit_on_gold(context, "supervision", "supervision", recorder)
    examples = context.split.transfer + context.split.transfer_validation
    recorder.weak_labels(finetune.predictions(head, examples, context.options))
    finetune.record_heldout(head, context, recorder)
    return head


def _make_frozen(context: Context[Config], recorder: Recorder) -> Head | None:
    ground_truth.record_rows(context, recorder)
    model = ground_truth.fit_frozen_on_gold(context, "supervision", "supervision", recorder)
    recorder.weak_labels(model.predictions(context.split.transfer + context.split.transfer_validation))
    model.record_heldout(recorder)
    return model.head()
