"""The ablation of Table 2: all three enhancements together, all but one, each alone, and none.

The paper divides the learning rate by 10 at each position of a chain. Methods with a chain are also run without this decay
(--lr-decay 1).
"""

METHODS = ["baseline", "confidence", "bootstrap", "generative", "full"]
METHODS += [f"full-without-{part}" for part in ("confidence", "bootstrap", "generative")]
CHAINED = [method for method in METHODS if method not in ("baseline", "confidence", "generative", "full-without-bootstrap")]

STUDENT = {"stage": "student", "weak": "chess-60k", "strong": "chess-426k", "early_stopping": "none"}

SETTINGS = [
    *(STUDENT | {"method": method} for method in METHODS),
    *(STUDENT | {"method": method, "lr_decay": 1} for method in CHAINED),
]
