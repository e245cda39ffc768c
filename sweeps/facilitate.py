"""Facilitation (eq. 1): in three iterations, by whom, on which questions, with which targets, and from which weights.

`--teacher ceiling` is a control, taught by a model that has learned ground truth: what the weak model can take in at all.
"""

from typing import Any

FACILITATE: dict[str, Any] = {"stage": "facilitate", "weak": "chess-60k", "strong": "chess-426k", "early_stopping": "none"}

SETTINGS = [
    FACILITATE | {"iterations": 3},
    FACILITATE | {"teacher": "ceiling"},
    FACILITATE | {"method": "confidence"},
    *(FACILITATE | {"question_source": questions} for questions in ("supervision", "transfer", "both")),
    FACILITATE | {"targets": "hard"},
    *(FACILITATE | {"temperature": temperature} for temperature in (0.3, 3.0)),
    FACILITATE | {"start": "supervisor"},
]
