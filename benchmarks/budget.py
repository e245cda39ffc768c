"""What predictions cost by the tokens that go through a model at once: CPU microseconds per row, and the memory that it takes.

    python benchmarks/budget.py --model DIRECTORY

DIRECTORY holds a BERT, such as all-MiniLM-L6-v2, which reads rows of 16 tokens; shipped chess models read 4,000 positions. One
thread; the least of two, in turns; memory is what the process had at most, from the smallest budget up. Why
token_batches.BUDGET is as it is.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Callable

import numpy as np
import torch
from transformers import AutoModel

from w2s_mlflow import models, tasks
from w2s_mlflow.modeling import heads, inference, token_batches

BUDGETS = (512, 1024, 2048, 4096, 8192, 16384)
LENGTH = 16


def encoder(path: str) -> Callable[[int], int]:
    """(budget) -> rows read: one batch of it."""
    model = AutoModel.from_pretrained(path, local_files_only=True).eval()

    def read(budget: int) -> int:
        ids_RL = torch.randint(1000, model.config.vocab_size, (budget // LENGTH, LENGTH))
        with torch.inference_mode():
            model(input_ids=ids_RL, attention_mask=torch.ones_like(ids_RL))
        return len(ids_RL)

    return read


def spec(name: str) -> Callable[[int], int]:
    """(budget) -> rows read: 4,000 positions."""
    head = heads.build("lm_choice", *models.load(models.find(name, "strong"), pretrained=True), 2)
    data = head.encode([row.example for row in tasks.find("chess").load(None).train[:4000]])

    def read(budget: int) -> int:
        token_batches.BUDGET = budget
        return len(inference.probabilities(head, data))

    return read


def measured(read: Callable[[int], int]) -> dict[str, list[float]]:
    """By budget: CPU microseconds per row, and MB at most."""
    read(BUDGETS[0])
    seconds, peaks = np.full((2, len(BUDGETS)), np.inf), []
    for turn in range(2):
        for number, budget in enumerate(BUDGETS):
            started = time.process_time()
            rows = read(budget)
            seconds[turn, number] = (time.process_time() - started) / rows
            if turn == 0:
                peaks.append(round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))
    return {"budgets": list(BUDGETS), "us per row": (1e6 * seconds.min(axis=0)).round().tolist(), "MB": peaks}


def main() -> None:
    """Measure and print one JSON object for each model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    path = parser.parse_args().model
    torch.manual_seed(0)
    torch.set_num_threads(1)
    for name in ("chess-27k", "chess-426k"):
        print(json.dumps({"model": name, **measured(spec(name))}), flush=True)
    print(json.dumps({"model": "BERT", **measured(encoder(path))}), flush=True)


if __name__ == "__main__":
    main()
