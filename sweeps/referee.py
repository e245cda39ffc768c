"""What a hostile referee asks of the default experiment: the controls around its claim.

- The learning rate: a third of it and three times it.
- Gold labels: ceilings on a few labels, which tell how many gold labels the weak ones are worth.
- Noise: random hard labels that are only as often right as the weak labels.
- Systematic errors: a supervisor whose errors follow a rule that can be learned, and noise that matches its labels.
- A student of its supervisor's size, a student from random weights, other heads, a planner that is given the rules of the
  exchange, rules over other lists of features, and the second task, `chess_preference`.
- The pretrained checkpoint, held fixed instead of varied with the seed.
"""

from typing import Any

from w2s_mlflow import models

WEAK = "chess-60k"
STRONGS = ["chess-222k", "chess-426k"]
LARGEST = STRONGS[-1]
RULES = ["most_valuable_capture", "least_valuable_piece", "most_gained", "gain_beside_king", "first_check", "attack_lines"]
GOLD_ROWS = [20, 50, 100, 200, 400, 800]
FACTORS = [1 / 3, 3]

STUDENT: dict[str, Any] = {"stage": "student", "weak": WEAK, "early_stopping": "none"}
LARGE = STUDENT | {"strong": LARGEST}
SYSTEMATIC = LARGE | {"weak": "rule:searched_rule"}


def rates(strong: str) -> list[dict[str, Any]]:
    """Return the students of a model at other learning rates than its own."""
    rate = models.find(strong, "--strong").learning_rate
    methods = ["baseline", "confidence"]
    return [STUDENT | {"strong": strong, "method": m, "learning_rate": rate * f} for f in FACTORS for m in methods]


def pinned(strong: str) -> list[dict[str, Any]]:
    """Return the plain students with each checkpoint of both models held fixed."""
    numbers = range(models.find(strong, "--strong").checkpoints)
    return [STUDENT | {"weak": f"{WEAK}@{n}", "strong": f"{strong}@{n}", "method": "baseline"} for n in numbers]


SETTINGS = [
    *({"stage": "rule", "rule": rule} for rule in RULES),
    *(setting for strong in STRONGS for setting in rates(strong)),
    *(LARGE | {"method": "gold_subset", "gold_rows": rows} for rows in GOLD_ROWS),
    *(STUDENT | {"strong": strong, "method": "random_labels"} for strong in STRONGS),
    *(SYSTEMATIC | {"method": method} for method in ("baseline", "confidence", "matched_noise")),
    *(LARGE | {"method": method} for method in ("random_weights", "planner", "hard_labels")),
    LARGE | {"method": "matched_noise+loss:confidence"},
    STUDENT | {"strong": WEAK},
    *(LARGE | {"head": head} for head in ("classification", "lm_choice")),
    *(LARGE | {"task": "chess_preference", "method": m} for m in ("baseline", "confidence", "self_training", "best_prompt")),
    *pinned(LARGEST),
]
