"""Control: the ground truth with as many wrong labels as the supervisor's labels have, but at randomly chosen rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from w2s_mlflow.methods.labels import SUPERVISOR
from w2s_mlflow.methods.labels import NoOptions as Options
from w2s_mlflow.pipeline import ground_truth

if TYPE_CHECKING:
    from w2s_mlflow.pipeline.context import Context
    from w2s_mlflow.records import SoftLabels
    from w2s_mlflow.tracking.recorder import Recorder

__all__ = ["Options"]

LABELLER, GOLD = SUPERVISOR, True
NOTE = "finetuned on ground truth with random errors, as many as in the labels of"


def labels(weak: SoftLabels, context: Context[Any], options: Options, recorder: Recorder) -> SoftLabels:
    """Return the ground truth as one-hot labels, with as many errors as the weak labels have, but at random rows."""
    return ground_truth.random_labels(context, weak, recorder)
