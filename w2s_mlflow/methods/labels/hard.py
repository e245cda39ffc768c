"""The most probable classes of the supervisor's labels, as one-hot labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from w2s_mlflow.methods.labels import SUPERVISOR
from w2s_mlflow.methods.labels import NoOptions as Options

if TYPE_CHECKING:
    from w2s_mlflow.pipeline.context import Context
    from w2s_mlflow.records import SoftLabels
    from w2s_mlflow.tracking.recorder import Recorder

__all__ = ["Options"]

LABELLER, GOLD = SUPERVISOR, False
NOTE = "finetuned on the most probable classes of the labels of"


def labels(weak: SoftLabels, context: Context[Any], options: Options, recorder: Recorder) -> SoftLabels:
    """Return the weak labels as one-hot labels."""
    return weak.hardened()
