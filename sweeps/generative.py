"""Search over generative finetuning: its epochs, and the learning rate and batch size of the training that follows it.

Trials are scored with ground truth on `selection` for a smaller pair of models (objective `proxy`), never for the tuned pair.
"""

from typing import Any

STAGE = "student"
OBJECTIVE, METRIC, DIRECTION = "proxy", "accuracy", "maximize"
SETTING = {"weak": "chess-60k", "strong": "chess-426k", "method": "generative", "early_stopping": "none"}
PROXY = [{"weak": "chess-27k", "strong": "chess-121k"}]


def space(trial: Any) -> dict[str, Any]:
    """Return the options of one trial."""
    return {
        "generative_epochs": trial.suggest_int("generative_epochs", 1, 3),
        "learning_rate": trial.suggest_float("learning_rate", 1e-4, 3e-3, log=True),
        "batch_size": trial.suggest_categorical("batch_size", [8, 16, 32]),
    }
