"""Control: the student is not trained. Only --head lm_choice allows this."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from w2s_mlflow.methods.labels import NOBODY
from w2s_mlflow.methods.labels import NoOptions as Options

if TYPE_CHECKING:
    from w2s_mlflow.pipeline.context import Context
    from w2s_mlflow.tracking.recorder import Recorder

__all__ = ["Options"]

LABELLER, GOLD = NOBODY, False
NOTE = "not finetuned"


def labels(weak: None, context: Context[Any], options: Options, recorder: Recorder) -> None:
    """Return None, so that the student is not trained."""
    return None
