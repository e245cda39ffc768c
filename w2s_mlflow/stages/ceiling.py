"""The ceiling: the strong model finetuned on the ground truth of `transfer`, for which students have only weak labels.

All methods share one ceiling per (task, strong, seed, size), trained with plain settings. Its run is tagged `w2s.gold`: no
student may train on its labels. The tag `w2s.ceiling_failed` is `near chance` if its training accuracy is not clearly above the
share of the most frequent class, else `no`. The metrics are the same as for the supervisor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from w2s_mlflow import models
from w2s_mlflow.config import checked_dataclass, option
from w2s_mlflow.pipeline import finetune, ground_truth, runs, scoring
from w2s_mlflow.pipeline.context import Context, resolve
from w2s_mlflow.pipeline.options import SupervisedTraining

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
    context = resolve(config)
    parts = runs.parts("ceiling", VERSION, context, {}, ["stages.ceiling:_make", "losses.cross_entropy"])
    names = context.names()
    note = f"`{names['strong']}` finetuned on the ground truth of `transfer`: what a perfect supervisor would reach."
    identity, tags = names | {"method": "ceiling"}, {runs.GOLD: "transfer"}
    ceiling = runs.produce(parts, context, identity, note, lambda recorder: _make(context, recorder), tags=tags)
    return scoring.report(ceiling, context)


def _make(context: Context[Config], recorder: Recorder) -> Head:
    head = ground_truth.fit_on_gold(context, "transfer", "ceiling", recorder)
    finetune.record_heldout(head, context, recorder)
    return head
