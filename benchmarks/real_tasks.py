"""Weak-to-strong on real text with two sizes of one pretrained encoder: floor, ceiling, student and PGR per task.

    W2S_DATA_DIR=MIRROR python benchmarks/real_tasks.py --weak MODEL:1 --strong MODEL:6 [--tasks sst2 cola] [--seeds 0..2]
    W2S_DATA_DIR=MIRROR python benchmarks/real_tasks.py --weak MODEL:1 --strong MODEL:6 --chain MODEL:2,MODEL:4 --tasks sst2 \
        --methods baseline bootstrap full [--lr-decays 10 1] [--train-size 1600]

MODEL is a directory or a hub id. Each method that has a chain is trained once for each of --lr-decays. Runs go where MLflow's
settings say; what is there already is reused. Prints the table of PGR.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator
from typing import Any

from w2s_mlflow.analysis import build, report
from w2s_mlflow.methods import presets
from w2s_mlflow.registry import plugin
from w2s_mlflow.stages import student
from w2s_mlflow.stages.sweep import parse_seeds

SIZES = {"sst2": 3000, "cola": 3000, "qnli": 3000, "wic": 3000, "hh_rlhf": 1600, "puzzles": 3000}
"""Training rows of each task, both halves together; all test rows there are."""
COLUMNS = [
    "task",
    "method",
    "method_options",
    "n",
    "weak_accuracy",
    "accuracy",
    "accuracy_low",
    "accuracy_high",
    "ceiling_accuracy",
    "agreement",
]
PGR = ["pgr", "pgr_low", "pgr_high", "pgr_status"]


def main() -> None:
    """Train what is missing and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weak", required=True)
    parser.add_argument("--strong", required=True)
    parser.add_argument("--tasks", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--methods", nargs="+", default=["baseline"])
    parser.add_argument("--seeds", default="0..2")
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--train-size", type=int)
    parser.add_argument("--chain", help="models between weak and strong, separated by commas")
    parser.add_argument("--lr-decays", type=float, nargs="+", default=[10.0])
    options = parser.parse_args()
    results = []
    for seed, task, method in itertools.product(parse_seeds(options.seeds), options.tasks, methods(options)):
        shared = {"weak": options.weak, "strong": options.strong, "max_length": options.max_length}
        config = student.Config(task=task, seed=seed, train_size=options.train_size or SIZES[task], **shared, **method)
        results.append(student.run(config))
        print(
            results[-1].name, {name: round(value, 3) for name, value in results[-1].metrics.items() if name.startswith("test/")}
        )
    table = plugin("tables", "pgr", "table").table(build.load(results).outcomes)
    print(report.markdown(table[COLUMNS + PGR]))


def methods(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The options of each method; one with a chain comes once for each decay."""
    for name in options.methods:
        if not presets.METHODS[name].get("chain"):
            yield {"method": name}
            continue
        for decay in options.lr_decays:
            yield {"method": name, "chain": options.chain, "lr_decay": decay}


if __name__ == "__main__":
    main()
