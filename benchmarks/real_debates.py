"""Facilitation, debate and alignment on real text, SST-2: a grid over the stages, the trunks of one encoder frozen.

    W2S_DATA_DIR=MIRROR MINILM=DIRECTORY python -m w2s_mlflow sweep --sweep benchmarks/real_debates.py

DIRECTORY holds all-MiniLM-L6-v2, or is its hub id. The weak model is a linear head on its first layer, the strong on all six.
"""

from __future__ import annotations

import os
from typing import Any

MINILM = os.environ["MINILM"]
SHARED: dict[str, Any] = {
    "task": "sst2",
    "weak": f"{MINILM}:1",
    "strong": f"{MINILM}:6",
    "freeze": "backbone",
    "max_length": 64,
}
SHARED |= {"train_size": 1000}

SETTINGS: list[dict[str, Any]] = [
    SHARED,
    SHARED | {"method": "debate"},
    SHARED | {"stage": "facilitate", "question_rows": 1000},
    SHARED | {"stage": "debate", "split": "test", "questions": 400, "traces": 0},
    SHARED | {"stage": "align", "questions": 400},
]
