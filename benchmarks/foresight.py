"""What the shipped chess models foresee without any label: recaptures, and the answers of each prompt and planner of `chess`.

    python benchmarks/foresight.py

Prints one row per model and checkpoint, on the held-out rows of the task: the share of captures for which the model tells
whether they are retaken (`-` has a probability of less than a half), and the accuracy of each prompt and planner.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np

from w2s_mlflow import models, tasks
from w2s_mlflow.modeling import elicitation, inference
from w2s_mlflow.models import ModelSpec, chess
from w2s_mlflow.records import Row
from w2s_mlflow.tasks import Query
from w2s_mlflow.tasks import _chess_play as chess_play

HALF = 0.5


def retaken(row: Row) -> list[bool]:
    """Return whether each of the two captures of a row can be retaken."""
    board = chess_play.parse(row.example.segments[0])
    replies = {move.word: move.reply for move in chess_play.analyse(board).moves}
    return [replies[move] != chess_play.NONE for move in row.example.candidates]


def measure(spec: ModelSpec, rows: Sequence[Row]) -> list[float]:
    """Return the share of recaptures that the model foresees, and the accuracies of the task's prompts and planners."""
    task, examples = tasks.find("chess"), [row.example for row in rows]
    model = elicitation.Continuations(*models.load(spec, pretrained=True), None)
    captures = [(example, move) for example in examples for move in example.candidates]
    queries = [Query(f"{example.segments[0]} {move}", chess_play.NONE) for example, move in captures]
    safe_M = np.exp(inference.outputs(model, model.encode_queries(queries), None, "float32").reshape(-1))
    foreseen = np.mean((safe_M < HALF) == [is_retaken for row in rows for is_retaken in retaken(row)])
    gold_N = np.array([row.label for row in rows])
    found = [float(foreseen)]
    for prompt in (*task.prompts.values(), *task.planners.values()):
        answers_NC = elicitation.probabilities(model, prompt, examples, None, "float32")
        found.append(float(np.mean(answers_NC.argmax(axis=1) == gold_N)))
    return found


def main() -> None:
    """Measure all models and print the table."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    task = tasks.find("chess")
    rows = task.load(None).heldout
    print(f"| model | recaptures | {' | '.join((*task.prompts, *task.planners))} |")
    print("|---|" + "---|" * (1 + len(task.prompts) + len(task.planners)))
    for spec in chess.SPECS:
        for number in range(spec.checkpoints):
            values = measure(spec.for_seed(number), rows)
            print(f"| {spec.name}@{number} | {' | '.join(f'{value:.3f}' for value in values)} |", flush=True)


if __name__ == "__main__":
    main()
