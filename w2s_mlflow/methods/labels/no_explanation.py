"""The supervisor's labels, revised: if a baseline student disagrees, a judge decides, and neither shows evidence."""

from __future__ import annotations

from w2s_mlflow.methods.labels import DEBATE, unchanged
from w2s_mlflow.methods.labels import NoOptions as Options

__all__ = ["Options"]

LABELLER, GOLD = DEBATE, False
NOTE = "finetuned on the supervisor's labels as revised, without evidence, by the judge of"
labels = unchanged
