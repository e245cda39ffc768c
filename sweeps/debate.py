"""Debate as a supervisor: students of labels that a judge makes where a plain student disagrees, beside plain weak labels.

The judge sees both sides' evidence (debate), the strong side's alone (consultancy), or none (no_explanation).
"""

from __future__ import annotations

from typing import Any

STRONG = ("chess-222k", "chess-426k")
METHODS = ("baseline", "debate", "consultancy", "no_explanation")

SETTINGS: list[dict[str, Any]] = [{"strong": strong, "method": method} for strong in STRONG for method in METHODS]
