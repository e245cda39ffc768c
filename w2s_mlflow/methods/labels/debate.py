"""The supervisor's labels, revised by debate: if a baseline student disagrees, both show evidence and a judge decides."""

from __future__ import annotations

from w2s_mlflow.methods.labels import DEBATE, unchanged
from w2s_mlflow.methods.labels import NoOptions as Options

__all__ = ["Options"]

LABELLER, GOLD = DEBATE, False
NOTE = "finetuned on the supervisor's labels as revised by the debates of"
labels = unchanged
