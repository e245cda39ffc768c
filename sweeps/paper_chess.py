"""The paper's Tables 2 and 3 and Figures 1 to 5 on the chess tasks (docs/reference/paper.md).

Students of three sizes with each enhancement alone, all enhancements together and all but one, reward modelling, and probes and
error types of the largest plain student. Bootstrapping needs a model between supervisor and student, so the smallest student
has none; the learning rate falls by 10 along a chain, as in the paper.
"""

from __future__ import annotations

from typing import Any

STRONGS = ["chess-121k", "chess-222k", "chess-426k"]
LARGEST = STRONGS[-1]
ABLATION = ["full", *(f"full-without-{part}" for part in ("confidence", "bootstrap", "generative"))]

PAIR: dict[str, Any] = {"weak": "chess-60k", "early_stopping": "none"}
STUDENT = PAIR | {"stage": "student"}

SETTINGS = [
    *(
        STUDENT | {"strong": strong, "method": method}
        for strong in STRONGS
        for method in ("baseline", "confidence", "generative")
    ),
    *(STUDENT | {"strong": strong, "method": "bootstrap"} for strong in STRONGS[1:]),
    *(STUDENT | {"strong": LARGEST, "method": method} for method in ABLATION),
    *(STUDENT | {"strong": strong, "task": "chess_preference"} for strong in STRONGS),
    *(PAIR | {"strong": LARGEST, "method": "baseline", "stage": stage} for stage in ("probe", "errors")),
]
