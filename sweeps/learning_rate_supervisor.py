"""Search over the learning rate and the epochs of a supervisor.

Trials are scored with the ground truth of the validation split of `supervision`, the half that the supervisor is trained on.
"""

from typing import Any

STAGE = "supervisor"
OBJECTIVE, DIRECTION = "agreement", "maximize"
SETTING = {"weak": "chess-60k"}


def space(trial: Any) -> dict[str, Any]:
    """Return the options of one trial."""
    return {
        "learning_rate": trial.suggest_float("learning_rate", 1e-4, 1e-2, log=True),
        "epochs": trial.suggest_int("epochs", 1, 4),
    }
