"""Algorithm 2: finetune the weak model on the ground truth of `supervision`, then let it label `transfer`.

Metrics: `train/loss` and `train/gradient_norm` by step; `validation/agreement` with the gold labels of its validation slice;
`train/accuracy` and `train/majority`, the share of the most frequent class; `validation/temperature`, fitted on that slice (for
`student --calibrate`); `test/accuracy` and the other metrics of metrics.py, also as `validation/<name>`.
Artifacts: `labels/weak_labels.parquet`, the probabilities on `transfer` and its validation slice; `predictions/*.parquet`;
`rows.parquet`, the digest of each row of the split; `figures/confidence_test.png`, confidence against accuracy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from w2s_mlflow import models
from w2s_mlflow.config import checked_dataclass, option
from w2s_mlflow.data import loading
from w2s_mlflow.data.splits import Split
from w2s_mlflow.pipeline import finetune, ground_truth, runs, scoring
from w2s_mlflow.pipeline.options import NONE, SupervisedTraining

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

    weak: str = option(default="chess-60k", lookup=models.find)
    """Weak model to finetune on ground truth."""

    MODEL: ClassVar[str] = "weak"


def run(config: Config) -> Result:
    """Find or train the supervisor. Raises ConfigError before anything is written."""
    config, cut = loading.resolve_and_split(config.resolved())
    parts = runs.parts("supervisor", VERSION, config, cut, {}, ["stages.supervisor:_make", "losses.cross_entropy"])
    labels = {"weak": config.spec().name, "strong": NONE, "method": "supervisor"}
    note = f"`{config.spec().name}` finetuned on the ground truth of `supervision` (Algorithm 2); it labels `transfer`."
    found = runs.produce(parts, config, cut, labels, note, lambda recorder: _make(config, cut, recorder))
    return scoring.report(found, config, cut)


def _make(config: Config, cut: Split, recorder: Recorder) -> Head:
    ground_truth.record_rows(config, cut, recorder)
    head = ground_truth.fit_on_gold(config, cut, "supervision", "supervision", recorder)
    recorder.weak_labels(finetune.predictions(head, cut.transfer + cut.transfer_validation, config))
    finetune.record_heldout(head, config, cut, recorder)
    return head
