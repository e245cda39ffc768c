"""Generative finetuning: its epochs, and the rate and batch of the weak labels after it.

The objective sees ground truth of `selection` of a smaller pair of models (proxy), never of the pair that is tuned.
"""

from typing import Any

STAGE = "student"
OBJECTIVE, METRIC, DIRECTION = "proxy", "accuracy", "maximize"
SETTING = {"weak": "chess-60k", "strong": "chess-426k", "method": "generative", "early_stopping": "none"}
PROXY = [{"weak": "chess-27k", "strong": "chess-121k"}]


def space(trial: Any) -> dict[str, Any]:
    """The options of one trial."""
    return {
        "generative_epochs": trial.suggest_int("generative_epochs", 1, 3),
        "learning_rate": trial.suggest_float("learning_rate", 1e-4, 3e-3, log=True),
        "batch_size": trial.suggest_categorical("batch_size", [8, 16, 32]),
    }
