"""The learning rate of each model, by one rule that no student's result enters.

    python benchmarks/rates.py --models chess-60k,chess-222k,chess-426k

The rule: of the rates in the grid, take the one at which the model, finetuned as a ceiling, is most accurate on development
rows; on a tie, the lowest. The same rate then holds for all roles of the model (supervisor, student, ceiling). Development rows
are training rows of the task that none of the experiment's seeds puts in `supervision` or `transfer`, and that share no group
with a row of any part. Accuracy is cross-validated: each fold is scored by a model that is trained on the other folds, for all
epochs, with the number of the fold as its seed. The standard error treats the rows as independent.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from w2s_mlflow import tasks
from w2s_mlflow.data import loading
from w2s_mlflow.pipeline import finetune
from w2s_mlflow.pipeline.context import resolve
from w2s_mlflow.pipeline.finetune import LabelledExamples
from w2s_mlflow.records import Row
from w2s_mlflow.search.sweep_file import parse_seeds
from w2s_mlflow.stages import ceiling
from w2s_mlflow.tracking.dry_recorder import DryRecorder

RATES = (3e-4, 1e-3, 3e-3)
FEWEST = 400
"""Fewest development rows with which rates can be told apart: the standard error of an accuracy of .8 is then .02."""


def development_rows(task: str, seeds: Sequence[int], train_size: int | None, most: int) -> list[Row]:
    """Return at most `most` training rows that share no group with a row of any part of the seeds' splits."""
    used: set[str] = set()
    for seed in seeds:
        split = loading.resolve_and_split(ceiling.Config(task=task, seed=seed, train_size=train_size).resolved())[1]
        used |= {example.group for part in split.parts().values() for example in part}
    rows = tasks.find(task).load(None)
    used |= {row.example.group for row in rows.heldout}
    free = sorted((row for row in rows.train if row.example.group not in used), key=lambda row: row.example.id)
    if len(free) < FEWEST:
        raise SystemExit(f"--seeds must leave at least {FEWEST} training rows in no part, but {len(free)} are left")
    return free[:most]


def folds(rows: Sequence[Row], count: int) -> list[list[Row]]:
    """Divide the rows into folds; rows of one group are in the same fold."""
    groups = {group: number % count for number, group in enumerate(dict.fromkeys(row.example.group for row in rows))}
    return [[row for row in rows if groups[row.example.group] == fold] for fold in range(count)]


def correct(model: str, task: str, rate: float, parts: Sequence[Sequence[Row]]) -> list[bool]:
    """Return whether each row is answered correctly by the model that is trained on the other folds."""
    found: list[bool] = []
    for fold, held in enumerate(parts):
        config = ceiling.Config(strong=model, task=task, seed=fold, learning_rate=rate, early_stopping="none")
        context = resolve(config)
        training = [row for other, part in enumerate(parts) if other != fold for row in part]
        labels_NC = np.eye(context.task.classes, dtype=np.float32)[[row.label for row in training]]
        head = finetune.build_head(context)
        with tempfile.TemporaryDirectory() as directory:
            recorder = DryRecorder("rates", Path(directory))
            finetune.fit_head(head, context, LabelledExamples([row.example for row in training], labels_NC), None, recorder)
        answers_N = finetune.predictions(head, [row.example for row in held], context.options).probabilities_NC.argmax(axis=1)
        found += [int(answer) == row.label for answer, row in zip(answers_N, held, strict=True)]
    return found


def main() -> None:
    """Print a table of accuracies, and a JSON object with the chosen rate of each model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="chess")
    parser.add_argument("--models", required=True, help="names of models, separated by commas")
    parser.add_argument("--rates", default=",".join(map(str, RATES)), help="the grid, separated by commas")
    parser.add_argument("--seeds", default="0..4", help="seeds of the experiment, whose rows are left out")
    parser.add_argument("--train-size", type=int, help="training rows of the experiment; default: that of the task")
    parser.add_argument("--rows", type=int, default=1_500, help="most development rows")
    parser.add_argument("--folds", type=int, default=5)
    options = parser.parse_args()
    rows = development_rows(options.task, parse_seeds(options.seeds), options.train_size, options.rows)
    parts, rates = folds(rows, options.folds), sorted(map(float, options.rates.split(",")))
    print(f"{len(rows)} development rows, {options.folds} folds, accuracy (standard error)\n")
    print(f"| model | {' | '.join(f'{rate:g}' for rate in rates)} | chosen |\n|---|{'---|' * len(rates)}---|")
    chosen = {}
    for model in options.models.split(","):
        accuracies = {rate: float(np.mean(correct(model, options.task, rate, parts))) for rate in rates}
        chosen[model] = max(accuracies, key=accuracies.__getitem__)
        cells = [f"{value:.3f} ({math.sqrt(value * (1 - value) / len(rows)):.3f})" for value in accuracies.values()]
        print(f"| {model} | {' | '.join(cells)} | {chosen[model]:g} |", flush=True)
    print(json.dumps(chosen))


if __name__ == "__main__":
    main()
