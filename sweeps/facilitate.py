"""Facilitation (eq. 1) in three iterations, and variants of its teacher, questions, targets and initial weights.

`--teacher ceiling` is a control: the teacher is trained on ground truth, which shows how much the weak model can learn at best.
"""

from typing import Any

FACILITATE: dict[str, Any] = {"stage": "facilitate", "weak": "chess-60k", "strong": "chess-426k", "early_stopping": "none"}

SETTINGS = [
    FACILITATE | {"iterations": 3},
    FACILITATE | {"teacher": "ceiling"},
    FACILITATE | {"method": "confidence"},
    *(FACILITATE | {"question_source": questions} for questions in ("supervision", "transfer", "both")),
    FACILITATE | {"targets": "hard"},
    *(FACILITATE | {"temperature": temperature} for temperature in (2.0, 5.0)),
    FACILITATE | {"start": "supervisor"},
]
