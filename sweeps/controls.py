"""Controls and variants of one pair of models: labels, losses, early stopping.

Labels: the weak ones, hardened, calibrated, replaced by random ones that are as often right, or by ground truth. Losses: all.
Early stopping: none, by weak labels, by ground truth (a control, too). Without a supervisor: the model as it comes, and one
from random weights.
"""

from typing import Any

from w2s_mlflow import registry

STUDENT: dict[str, Any] = {"stage": "student", "weak": "chess-60k", "strong": "chess-426k", "early_stopping": "none"}
CONTROLS = ["hard_labels", "random_labels", "oracle", "zero_shot", "random_weights"]

SETTINGS = [
    *(STUDENT | {"loss": loss} for loss in registry.plugins("losses")),
    *(STUDENT | {"method": method} for method in CONTROLS),
    STUDENT | {"calibrate": True},
    *(STUDENT | {"epochs": 4, "early_stopping": stopping} for stopping in ("none", "weak", "oracle")),
    *(STUDENT | {"epochs": 4, "generative_epochs": 1, "early_stopping": stopping} for stopping in ("none", "weak", "oracle")),
]
