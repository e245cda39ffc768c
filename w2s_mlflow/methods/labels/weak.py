"""The supervisor's labels, unchanged (Algorithm 3)."""

from __future__ import annotations

from w2s_mlflow.methods.labels import SUPERVISOR, unchanged
from w2s_mlflow.methods.labels import NoOptions as Options

__all__ = ["Options"]

LABELLER, GOLD = SUPERVISOR, False
NOTE = "finetuned on the labels of"
labels = unchanged
