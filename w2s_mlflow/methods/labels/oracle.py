"""Control: the ground truth of `transfer`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from w2s_mlflow.methods.labels import NOBODY
from w2s_mlflow.methods.labels import NoOptions as Options
from w2s_mlflow.pipeline import ground_truth

if TYPE_CHECKING:
    from w2s_mlflow.pipeline.context import Context
    from w2s_mlflow.records import SoftLabels
    from w2s_mlflow.tracking.recorder import Recorder

__all__ = ["Options"]

LABELLER, GOLD = NOBODY, True
NOTE = "finetuned on the ground truth"


def labels(weak: None, context: Context[Any], options: Options, recorder: Recorder) -> SoftLabels:
    """Return the ground truth of `transfer` and its validation slice as one-hot labels."""
    return ground_truth.oracle_labels(context, context.split.transfer + context.split.transfer_validation, recorder)
