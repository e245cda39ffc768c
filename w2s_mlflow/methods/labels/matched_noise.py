"""Control: the ground truth with noise that matches the supervisor's labels in accuracy and in softness.

Every row keeps the probabilities of its weak label, but within deciles of confidence it is random which rows have errors
(`pipeline.label_noise`). A student of these labels shows what a student would reach if the supervisor's errors could not be
learned. The control `random` has hard labels, matched in accuracy alone.
"""

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
NOTE = "finetuned on ground truth with random errors, as many and as confident as in the labels of"


def labels(weak: SoftLabels, context: Context[Any], options: Options, recorder: Recorder) -> SoftLabels:
    """Return labels with the accuracy and softness of the weak labels, but with errors at random rows."""
    return ground_truth.matched_noise(context, weak, recorder)
