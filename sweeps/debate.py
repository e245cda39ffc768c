"""Debate as a supervisor: where a plain student disagrees with the weak labels, a judge decides which label a new student gets.

The judge sees the evidence of both sides (`debate`), of the strong side only (`consultancy`), or of neither
(`no_explanation`). `baseline` is the plain student.
"""

from __future__ import annotations

from typing import Any

STRONG = ("chess-222k", "chess-426k")
METHODS = ("baseline", "debate", "consultancy", "no_explanation")

SETTINGS: list[dict[str, Any]] = [{"strong": strong, "method": method} for strong in STRONG for method in METHODS]
