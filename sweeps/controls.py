"""Controls and variants of the labels, the loss and early stopping, for one pair of models.

Labels: the weak labels as they are, hard or calibrated; random labels with the supervisor's error rate; ground truth. Losses:
all plug-ins. Early stopping: none, by weak labels, or (as a control) by ground truth. Further controls: the strong model
without finetuning, and a student trained from random weights.
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
