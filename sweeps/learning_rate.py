"""Search over the learning rate and the epochs of a plain student.

Trials are scored by agreement with the weak labels on the validation split, which needs no ground truth besides the
supervisor's.
"""

from typing import Any

STAGE = "student"
OBJECTIVE, DIRECTION = "agreement", "maximize"
SETTING = {"weak": "chess-60k", "strong": "chess-426k", "method": "baseline"}


def space(trial: Any) -> dict[str, Any]:
    """Return the options of one trial."""
    return {
        "learning_rate": trial.suggest_float("learning_rate", 1e-4, 3e-3, log=True),
        "epochs": trial.suggest_int("epochs", 1, 4),
    }
