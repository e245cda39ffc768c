"""Bootstrapping: which intermediate models, how often the labels go through them, and how fast rates fall along the chain.

The objective sees ground truth of `selection` of another task (proxy), never of the one that is tuned.
"""

from typing import Any

STAGE = "student"
OBJECTIVE, METRIC, DIRECTION = "proxy", "accuracy", "maximize"
SETTING = {"weak": "chess-60k", "strong": "chess-426k", "method": "bootstrap", "early_stopping": "none"}
PROXY = [{"task": "chess_preference"}]
CHAINS = ["chess-121k", "chess-222k", "chess-121k,chess-222k"]


def space(trial: Any) -> dict[str, Any]:
    """The options of one trial."""
    return {
        "chain": trial.suggest_categorical("chain", CHAINS),
        "chain_rounds": trial.suggest_int("chain_rounds", 1, 3),
        "lr_decay": trial.suggest_float("lr_decay", 1.0, 10.0, log=True),
    }
