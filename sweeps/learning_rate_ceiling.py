"""A ceiling's rate and epochs.

The objective sees ground truth of the validation slice of `transfer`, which it is trained on, and no other.
"""

from typing import Any

STAGE = "ceiling"
OBJECTIVE, DIRECTION = "agreement", "maximize"
SETTING = {"strong": "chess-426k"}


def space(trial: Any) -> dict[str, Any]:
    """The options of one trial."""
    return {
        "learning_rate": trial.suggest_float("learning_rate", 1e-4, 1e-2, log=True),
        "epochs": trial.suggest_int("epochs", 1, 4),
    }
