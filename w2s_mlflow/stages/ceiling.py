"""Finetune the strong model on the ground truth of `transfer`: the ceiling, with which students are compared.

Students are trained on weak labels of `transfer` only. All methods are compared with the same ceiling for each task, strong
model, seed and size. It is trained with the default epochs, batch size and learning rate. Its run has the tag `w2s.gold`, which
marks runs whose labels no student may be trained on. The tag `w2s.ceiling_failed` is `near chance` if the training accuracy
is not clearly above the share of the most frequent class, else `no`. The metrics are those of the supervisor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from w2s_mlflow import models
from w2s_mlflow.config import checked_dataclass, option
from w2s_mlflow.pipeline import finetune, frozen, ground_truth, runs, scoring
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
    """Find or train the ceiling. Raises ConfigError for invalid options, before anything is written."""
    context = resolve(config)
    make, roots = (_make, ()) if config.freeze is None else (_make_frozen, frozen.ROOTS)
    definitions = [f"stages.ceiling:{make.__name__}", "losses.cross_entropy", *roots]
    parts = runs.parts("ceiling", VERSION, context, {}, definitions)
    names = context.names()
    note = f"`{names['strong']}` finetuned on the ground truth of `transfer`, as if its supervisor were perfect."
    identity, tags = names | {"method": "ceiling"}, {runs.GOLD: "transfer"}
    ceiling = runs.produce(parts, context, identity, note, lambda recorder: make(context, recorder), tags=tags)
    return scoring.report(ceiling, context)


def _make(context: Context[Config], recorder: Recorder) -> Head:
    head = ground_truth.fit_on_gold(context, "transfer", "ceiling", recorder)
    finetune.record_heldout(head, context, recorder)
    return head


def _make_frozen(context: Context[Config], recorder: Recorder) -> Head | None:
    model = ground_truth.fit_frozen_on_gold(context, "transfer", "ceiling", recorder)
    model.record_heldout(recorder)
    return model.head()
