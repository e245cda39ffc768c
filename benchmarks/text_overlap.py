"""Near-duplicates and containment across the parts of the splits of sweeps/text.py, by brute force.

    python benchmarks/text_overlap.py MIRROR [TASK ...] [--seeds 0..1] [--sample 50]

Rows of one part are compared with all rows of the others, one pair at a time, by the definitions that
tests/test_real_overlap.py restates without the package's code. A line per task and seed says how many pairs were compared and
how many are related.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests import test_real_overlap as definitions
from w2s_mlflow import tasks
from w2s_mlflow.data import splits
from w2s_mlflow.records import Example
from w2s_mlflow.search import sweep_file


def compared(task: str, part: Sequence[Example], others: Sequence[Example], sample: int, seed: int) -> tuple[int, int]:
    """Return the number of compared pairs and the number of related pairs."""
    rows = random.Random(seed).sample(list(part), min(sample, len(part)))
    first, second = definitions.compared(task, rows), definitions.compared(task, others)
    return len(first) * len(second), sum(definitions.related(one, other) for one in first for other in second)


def main() -> int:
    """Print a line per task and seed. Return 1 if related rows were found."""
    grid = sweep_file.read("text")
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("mirror", type=Path)
    parser.add_argument("tasks", nargs="*", default=grid.TASKS)
    parser.add_argument("--seeds", default="0..1")
    parser.add_argument("--sample", type=int, default=50)
    asked = parser.parse_args()
    leaks = 0
    for name in asked.tasks:
        task = tasks.find(name)
        pool = splits.pool(task.key, task.load(asked.mirror), classes=task.classes)
        for seed in sweep_file.parse_seeds(asked.seeds):
            cut = splits.split_task(pool, seed=seed, **grid.SIZES)
            supervision = cut.supervision + cut.supervision_validation
            transfer = cut.transfer + cut.transfer_validation
            pairs = [(transfer, supervision), (cut.selection + cut.test, supervision + transfer)]
            counts = [compared(name, part, others, asked.sample, seed) for part, others in pairs]
            total, found = map(sum, zip(*counts, strict=True))
            leaks += found
            print(f"{name}, seed {seed}: {total:,} pairs, {found} related", flush=True)
    return int(leaks > 0)


if __name__ == "__main__":
    sys.exit(main())
