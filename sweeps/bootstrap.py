"""Search over bootstrapping: the intermediate models, the number of rounds, and the decay of learning rates along the chain.

Trials are scored with ground truth on `selection` of another task (objective `proxy`), never on that of the tuned task.
"""

from typing import Any

STAGE = "student"
OBJECTIVE, METRIC, DIRECTION = "proxy", "accuracy", "maximize"
SETTING = {"weak": "chess-60k", "strong": "chess-426k", "method": "bootstrap", "early_stopping": "none"}
PROXY = [{"task": "chess_preference"}]
CHAINS = ["chess-121k", "chess-222k", "chess-121k,chess-222k"]


def space(trial: Any) -> dict[str, Any]:
    """Return the options of one trial."""
    return {
        "chain": trial.suggest_categorical("chain", CHAINS),
        "chain_rounds": trial.suggest_int("chain_rounds", 1, 3),
        "lr_decay": trial.suggest_float("lr_decay", 1.0, 10.0, log=True),
    }
