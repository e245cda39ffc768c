"""Search over all three enhancements (confidence loss, bootstrapping, generative finetuning) and the learning rate.

Trials are scored with ground truth on `selection` of another task (objective `proxy`), never on that of the tuned task.
"""

from typing import Any

STAGE = "student"
OBJECTIVE, METRIC, DIRECTION = "proxy", "accuracy", "maximize"
SETTING = {"weak": "chess-60k", "strong": "chess-426k", "method": "full", "early_stopping": "none"}
PROXY = [{"task": "chess_preference"}]
CHAINS = ["chess-121k", "chess-222k", "chess-121k,chess-222k"]


def space(trial: Any) -> dict[str, Any]:
    """Return the options of one trial."""
    return {
        "alpha": trial.suggest_float("alpha", 0.0, 1.0),
        "warmup": trial.suggest_float("warmup", 0.0, 1.0),
        "chain": trial.suggest_categorical("chain", CHAINS),
        "chain_rounds": trial.suggest_int("chain_rounds", 1, 3),
        "lr_decay": trial.suggest_float("lr_decay", 1.0, 10.0, log=True),
        "generative_epochs": trial.suggest_int("generative_epochs", 1, 3),
        "learning_rate": trial.suggest_float("learning_rate", 1e-4, 3e-3, log=True),
    }
