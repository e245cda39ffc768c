"""The default experiment on real text, with real language models: heads on features of a frozen backbone.

Sentiment (SST-2) and inference (SNLI, MNLI, QNLI), and two tasks on which a pilot found no effect: CoLA and MRPC. The
supervisor is a sentence encoder of two layers. Student and ceiling are linear heads on one layer of a language model that reads
the task's prompt (`--freeze backbone`). Layer, penalty and prompts follow rules that see `supervision` only.

The claim is that of the default experiment, for all tasks together. It includes the two tasks without an effect in the pilot.

Models and tasks come from the hub, or from a mirror (W2S_DATA_DIR). Environment variables replace the models by others, each a
hub id or a path, and choose among the tasks; lists are separated by commas:

    W2S_TEXT_WEAK=/path/to/minilm:2 W2S_TEXT_STRONG=/path/to/a.gguf,/path/to/b W2S_TEXT_TASKS=sst2,snli
"""

import os
from pathlib import Path
from typing import Any


def listed(variable: str, default: str) -> list[str]:
    """Return the values of an environment variable that holds a list."""
    return [value.strip() for value in os.environ.get(variable, default).split(",") if value.strip()]


def short_name(model: str) -> str:
    """Return the name under which runs show a model: the last part of its hub id or path."""
    return Path(model).name.replace(".gguf", "")


WEAK = os.environ.get("W2S_TEXT_WEAK", "sentence-transformers/all-MiniLM-L6-v2:2")
STRONGS = listed("W2S_TEXT_STRONG", "HuggingFaceTB/SmolLM2-135M-Instruct,Qwen/Qwen2.5-Coder-0.5B-Instruct")
TASKS = listed("W2S_TEXT_TASKS", "sst2,snli,mnli,qnli,cola,mrpc")
METHODS = ["baseline", "confidence", "matched_noise", "self_training", "zero_shot"]
SIZES = {"train_size": 2600, "test_size": 550}
"""Sizes that every task allows: the held-out part of MRPC leaves the fewest test rows. Each half has 1,300 rows, of which 1,170
are not in its validation slice; a pilot with fewer than 1,000 rows of `transfer` failed."""
STUDENT: dict[str, Any] = {"stage": "student", "weak": WEAK, "freeze": "backbone", "early_stopping": "none", **SIZES}

CLAIM = [
    {
        "task": task,
        "weak": short_name(WEAK),
        "strong": [short_name(strong) for strong in STRONGS],
        "method": "baseline",
        "above": ["supervisor", "self_training", "label_free", "matched_noise"],
    }
    for task in TASKS
]
SETTINGS = [STUDENT | {"task": task, "strong": strong, "method": m} for task in TASKS for strong in STRONGS for m in METHODS]
