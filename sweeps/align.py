"""Alignment by a debate's reward (eq. 2) in three iterations: a judge decides, a reward model learns, it is aligned anew."""

from __future__ import annotations

from typing import Any

SETTINGS: list[dict[str, Any]] = [{"stage": "align", "iterations": 3}]
