"""Alignment of the strong model by the reward of debates (eq. 2), in three iterations.

In each iteration, a judge decides debates, a reward model is trained on its verdicts, and the strong model is aligned again.
"""

from __future__ import annotations

from typing import Any

SETTINGS: list[dict[str, Any]] = [{"stage": "align", "iterations": 3}]
