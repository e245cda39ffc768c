"""Search over the confidence loss: its weight, its warm-up and the learning rate.

Trials are scored with ground truth on `selection` for a smaller pair of models (objective `proxy`), never for the tuned pair.
"""

from typing import Any

STAGE = "student"
OBJECTIVE, METRIC, DIRECTION = "proxy", "accuracy", "maximize"
SETTING = {"weak": "chess-60k", "strong": "chess-426k", "method": "confidence", "early_stopping": "none"}
PROXY = [{"weak": "chess-27k", "strong": "chess-121k"}]


def space(trial: Any) -> dict[str, Any]:
    """Return the options of one trial."""
    return {
        "alpha": trial.suggest_float("alpha", 0.0, 1.0),
        "warmup": trial.suggest_float("warmup", 0.0, 1.0),
        "learning_rate": trial.suggest_float("learning_rate", 1e-4, 3e-3, log=True),
    }
