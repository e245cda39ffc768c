"""Facilitation (eq. 1): on which questions, with which targets, from which weights, by whom, and in three turns.

`--teacher ceiling` is a control, taught by a model that has learned ground truth: what a weak model can take in at all.
"""

from typing import Any

FACILITATE: dict[str, Any] = {"stage": "facilitate", "weak": "chess-60k", "strong": "chess-426k", "early_stopping": "none"}

SETTINGS = [
    FACILITATE | {"iterations": 3},
    FACILITATE | {"method": "confidence"},
    *(FACILITATE | {"questions": questions} for questions in ("transfer", "both")),
    *(FACILITATE | {"temperature": temperature} for temperature in (0.3, 3.0)),
    FACILITATE | {"targets": "hard"},
    FACILITATE | {"start": "supervisor"},
    *(FACILITATE | {"teacher": "ceiling", "questions": questions} for questions in ("supervision", "both")),
]
