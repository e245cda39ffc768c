"""Search over the learning rate and the epochs of a ceiling.

Trials are scored with the ground truth of the validation split of `transfer`, the half that the ceiling is trained on.
"""

from typing import Any

STAGE = "ceiling"
OBJECTIVE, DIRECTION = "agreement", "maximize"
SETTING = {"strong": "chess-426k"}


def space(trial: Any) -> dict[str, Any]:
    """Return the options of one trial."""
    return {
        "learning_rate": trial.suggest_float("learning_rate", 1e-4, 1e-2, log=True),
        "epochs": trial.suggest_int("epochs", 1, 4),
    }
