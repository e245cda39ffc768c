"""Weak-to-strong on real text with two sizes of one pretrained encoder: floor, ceiling, student and PGR per task.

    W2S_DATA_DIR=MIRROR python benchmarks/real_tasks.py --weak MODEL:1 --strong MODEL:6 [--tasks sst2 cola] [--seeds 0..2]

MODEL is a directory or a hub id. Runs go where MLflow's settings say; what is there already is reused. Prints the table of PGR.
"""

from __future__ import annotations

import argparse
import itertools

from w2s_mlflow.config import plugin
from w2s_mlflow.stages import analyze, student
from w2s_mlflow.stages.sweep import parse_seeds

TASKS = ("sst2", "cola", "qnli", "wic", "hh_rlhf", "puzzles")
COLUMNS = ["task", "method", "n", "weak_accuracy", "accuracy", "accuracy_low", "accuracy_high", "ceiling_accuracy", "agreement"]
PGR = ["pgr", "pgr_low", "pgr_high", "pgr_status"]


def main() -> None:
    """Train what is missing and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weak", required=True)
    parser.add_argument("--strong", required=True)
    parser.add_argument("--tasks", nargs="+", default=TASKS)
    parser.add_argument("--methods", nargs="+", default=["baseline"])
    parser.add_argument("--seeds", default="0..2")
    parser.add_argument("--train-size", type=int, default=2000)
    parser.add_argument("--test-size", type=int, default=600)
    parser.add_argument("--max-length", type=int, default=128)
    given = parser.parse_args()
    found = []
    for task, method, seed in itertools.product(given.tasks, given.methods, parse_seeds(given.seeds)):
        shared = {"train_size": given.train_size, "test_size": given.test_size, "max_length": given.max_length}
        config = student.Config(task=task, weak=given.weak, strong=given.strong, method=method, seed=seed, **shared)
        found.append(student.run(config))
        print(found[-1].name, {name: round(value, 3) for name, value in found[-1].metrics.items() if name.startswith("test/")})
    table = plugin("tables", "pgr", "table").table(analyze.load(found))
    print(analyze.markdown(table[COLUMNS + PGR]))


if __name__ == "__main__":
    main()
