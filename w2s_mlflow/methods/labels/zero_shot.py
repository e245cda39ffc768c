"""The strong model's own answers before any finetuning, as probabilities: self-training without labels."""

from __future__ import annotations

from w2s_mlflow.methods.labels import ZERO_SHOT, unchanged
from w2s_mlflow.methods.labels import NoOptions as Options

__all__ = ["Options"]

LABELLER, GOLD = ZERO_SHOT, False
NOTE = "finetuned on its own answers before finetuning, those of"
labels = unchanged
