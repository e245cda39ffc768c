"""One CPU thread against all of them: seconds of one epoch per rung, as the ratio all / one, measured in one run.

    python benchmarks/threads.py

Above 1, one thread is faster. This is why train.SMALL exists. Measure on an idle machine: beside other work the ratio is
far larger, since threads that wait for each other wait for the others' time slices too.
"""

from __future__ import annotations

import json
import statistics
import time

import numpy as np
import torch

from w2s_mlflow import heads, models, tasks, train
from w2s_mlflow.config import plugin
from w2s_mlflow.losses import cross_entropy

EXAMPLES, REPEATS = 512, 5


def epoch_seconds(rung: models.Rung, threads: int) -> float:
    """Median wall seconds of one epoch over 512 examples at batch 32."""
    torch.set_num_threads(threads)
    train.seed_everything(0)
    head = heads.build("choose", *models.load(rung, pretrained=False), 2)
    data = head.encode([row.example for row in tasks.find("chess").load().train[:EXAMPLES]])
    labels = np.full((EXAMPLES, 2), 0.5, dtype=np.float32)
    seconds = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        options = train.Options(epochs=1, batch_size=32, learning_rate=1e-3, seed=0)
        train.fit(head, data, labels, lambda f, y, p: cross_entropy.loss(f, y, p, cross_entropy.Options()), options)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def main() -> None:
    """Measure and print one JSON object: ratio by rung."""
    every = train.THREADS
    rungs: tuple[models.Rung, ...] = plugin("models", "chess", "--model").RUNGS
    print(json.dumps({rung.name: round(epoch_seconds(rung, every) / epoch_seconds(rung, 1), 2) for rung in rungs}))


if __name__ == "__main__":
    main()
