"""What of a student's gain is its labels', its loss's or its stopping's: controls and variants of one pair of models.

Labels: the weak ones hardened, calibrated, replaced by noise that is as often right, or by ground truth. Losses: every one.
Stopping: never, by weak labels, by ground truth (a control, too). What needs no supervisor: the model as it comes, and one from
random weights.
"""

from typing import Any

from w2s_mlflow import config

STUDENT: dict[str, Any] = {"stage": "student", "weak": "chess-60k", "strong": "chess-426k", "early_stopping": "none"}
CONTROLS = ["hard_labels", "random_labels", "oracle", "untuned", "random_weights"]

SETTINGS = [
    *(STUDENT | {"loss": loss} for loss in config.plugins("losses")),
    *(STUDENT | {"method": method} for method in CONTROLS),
    STUDENT | {"calibrate": True},
    *(STUDENT | {"epochs": 4, "early_stopping": stopping} for stopping in ("none", "weak", "oracle")),
    *(STUDENT | {"epochs": 4, "generative_epochs": 1, "early_stopping": stopping} for stopping in ("none", "weak", "oracle")),
]
