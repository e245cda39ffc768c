"""One CPU thread against all of them: seconds of one epoch per model, as the ratio all / one, measured in one run.

    python benchmarks/threads.py           # on an idle machine
    python benchmarks/threads.py --busy    # beside one busy process for each core

Above 1, one thread is faster. This is why train.SMALL exists: threads that wait for each other wait for the time slices of
others, too.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import statistics
import time
from collections.abc import Iterator

import numpy as np
import torch

from w2s_mlflow import models, tasks
from w2s_mlflow.losses import cross_entropy
from w2s_mlflow.modeling import heads
from w2s_mlflow.registry import plugin
from w2s_mlflow.training import loop

EXAMPLES, REPEATS = 256, 5


def epoch_seconds(spec: models.ModelSpec, threads: int) -> float:
    """Median wall seconds of one epoch over 256 examples at batch 32."""
    torch.set_num_threads(threads)
    loop.seed_everything(0)
    head = heads.build("lm_choice", *models.load(spec, pretrained=False), 2)
    data = head.encode([row.example for row in tasks.find("chess").load(None).train[:EXAMPLES]])
    labels = np.full((EXAMPLES, 2), 0.5, dtype=np.float32)
    seconds = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        options = loop.Options(epochs=1, batch_size=32, learning_rate=1e-3, seed=0)
        loop.fit(head, data, labels, lambda f, y, p: cross_entropy.loss(f, y, p, cross_entropy.Options()), options)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def spin() -> None:
    """Keep one core busy."""
    while True:
        pass


@contextlib.contextmanager
def load(busy: bool) -> Iterator[None]:
    """One busy process for each core, or none."""
    processes = [multiprocessing.Process(target=spin, daemon=True) for _ in range(os.cpu_count() or 1) if busy]
    for process in processes:
        process.start()
    try:
        yield
    finally:
        for process in processes:
            process.terminate()


def main() -> None:
    """Measure and print one JSON object: ratio by model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--busy", action="store_true")
    every = loop.THREADS
    specs: tuple[models.ModelSpec, ...] = plugin("models", "chess", "--model").SPECS
    with load(parser.parse_args().busy):
        ratios = {spec.name: round(epoch_seconds(spec, every) / epoch_seconds(spec, 1), 2) for spec in specs}
    print(json.dumps(ratios))


if __name__ == "__main__":
    main()
