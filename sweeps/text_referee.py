"""What a hostile referee asks of the experiment on real text (sweeps/text.py), for its first strong model.

- Gold labels: ceilings on a few labels, which tell how many gold labels the weak ones are worth.
- Random features: the same head on a backbone with random weights.
- Noise: hard labels that are only as often right as the weak labels.
- The layer and the penalty: other values than those that the rules choose.
- A student of its supervisor's size.

Environment variables choose models and tasks as in sweeps/text.py. The layers of LAYERS fit models of at least 24 layers.
"""

import os
from typing import Any

WEAK = os.environ.get("W2S_TEXT_WEAK", "sentence-transformers/all-MiniLM-L6-v2:2")
STRONG = os.environ.get("W2S_TEXT_STRONG", "HuggingFaceTB/SmolLM2-135M-Instruct").partition(",")[0]
TASKS = os.environ.get("W2S_TEXT_TASKS", "sst2,snli").split(",")
GOLD_ROWS = [50, 100, 200, 400, 800]
LAYERS = [6, 12, 18, 24]
PENALTIES = [0.03, 0.1, 0.3, 1.0]

STUDENT: dict[str, Any] = {"stage": "student", "weak": WEAK, "freeze": "backbone", "early_stopping": "none"}
STUDENT |= {"train_size": 2600, "test_size": 550}


def controls(task: str) -> list[dict[str, Any]]:
    """Return the controls on one task."""
    plain = STUDENT | {"task": task, "strong": STRONG}
    return [
        plain,
        *(plain | {"method": "gold_subset", "gold_rows": rows} for rows in GOLD_ROWS),
        *(plain | {"method": method} for method in ("random_weights", "random_labels", "hard_labels")),
        *(plain | {"layer": layer} for layer in LAYERS),
        *(plain | {"l2": penalty} for penalty in PENALTIES),
        plain | {"strong": WEAK},
    ]


SETTINGS = [setting for task in TASKS for setting in controls(task)]
