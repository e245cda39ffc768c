"""A plain student's rate and epochs.

The objective sees no ground truth but the supervisor's own half: it is agreement with the weak labels of the validation slice.
"""

from typing import Any

STAGE = "student"
OBJECTIVE, DIRECTION = "agreement", "maximize"
SETTING = {"weak": "chess-60k", "strong": "chess-426k", "method": "baseline"}


def space(trial: Any) -> dict[str, Any]:
    """The options of one trial."""
    return {
        "learning_rate": trial.suggest_float("learning_rate", 1e-4, 3e-3, log=True),
        "epochs": trial.suggest_int("epochs", 1, 4),
    }
