"""Qwen3 base models: decoders of five sizes (Qwen team 2025, arXiv:2505.09388)."""

from __future__ import annotations

from w2s_mlflow.models import Size, declared
from w2s_mlflow.models._loading import layers, load, revision, size

__all__ = ["SPECS", "layers", "load", "revision", "size"]

SPECS = (
    declared("qwen3-0.6b", "qwen", "Qwen/Qwen3-0.6B-Base", Size(596_049_920, 440_467_456)),
    declared("qwen3-1.7b", "qwen", "Qwen/Qwen3-1.7B-Base", Size(1_720_574_976, 1_409_410_048)),
    declared("qwen3-4b", "qwen", "Qwen/Qwen3-4B-Base", Size(4_022_468_096, 3_633_511_936)),
    declared("qwen3-8b", "qwen", "Qwen/Qwen3-8B-Base", Size(8_190_735_360, 6_946_075_648)),
    declared("qwen3-14b", "qwen", "Qwen/Qwen3-14B-Base", Size(14_768_307_200, 13_212_482_560)),
)
