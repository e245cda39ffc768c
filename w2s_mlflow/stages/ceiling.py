"""The ceiling: the strong model finetuned on the ground truth of `transfer`, for which students have only weak labels.

All methods share one ceiling per (task, strong, seed, size), trained with plain settings. Its run is tagged `w2s.gold`: no
student may train on its labels. The tag `w2s.ceiling_failed` is `near chance` if its training accuracy is not clearly above the
share of the most frequent class, else `no`. The metrics are the same as for the supervisor.
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
    """Options of a ceiling."""

    strong: str = option(default="chess-426k", lookup=models.find)
    """Strong model to finetune on ground truth."""

    MODEL: ClassVar[str] = "strong"


def run(config: Config) -> Result:
    """Find or train the ceiling. Raises ConfigError before anything is written."""
    config, cut = loading.resolve_and_split(config.resolved())
    parts = runs.parts("ceiling", VERSION, config, cut, {}, ["stages.ceiling:_make", "losses.cross_entropy"])
    labels = {"weak": NONE, "strong": config.spec().name, "method": "ceiling"}
    note = f"`{config.spec().name}` finetuned on the ground truth of `transfer`: what a perfect supervisor would reach."
    tags = {runs.GOLD: "transfer"}
    found = runs.produce(parts, config, cut, labels, note, lambda recorder: _make(config, cut, recorder), tags=tags)
    return scoring.report(found, config, cut)


def _make(config: Config, cut: Split, recorder: Recorder) -> Head:
    head = ground_truth.fit_on_gold(config, cut, "transfer", "ceiling", recorder)
    finetune.record_heldout(head, config, cut, recorder)
    return head
