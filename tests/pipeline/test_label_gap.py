"""Accuracy of weak labels on `transfer` beside that on `test`: numbers worked by hand, and what a run says of a gap."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from w2s_mlflow.data import loading
from w2s_mlflow.pipeline import scoring
from w2s_mlflow.pipeline.scoring import LabelGap
from w2s_mlflow.stages import student, supervisor
from w2s_mlflow.tracking import results

SQUARES = [f"{file}{rank}" for file in "abcdefgh" for rank in range(1, 9)]


def test_a_gap_is_clear_if_its_interval_does_not_contain_zero() -> None:
    gap = LabelGap(0.84, 0.61, 0.05)
    assert gap.is_clear() and gap.describe() == "+0.230 [+0.180, +0.280]"
    assert not LabelGap(0.84, 0.80, 0.05).is_clear() and LabelGap(0.70, 0.80, 0.05).is_clear()
    assert not LabelGap(1.0, 0.5, float("nan")).is_clear()  # one group has no interval
    assert "0.840 of the `transfer` rows" in gap.remark() and gap.describe() in gap.remark()


@pytest.fixture
def task(tmp_path: Path) -> Path:
    """A file of 200 training rows and 80 held-out rows."""
    places = [(part, piece, n) for part, piece, count in (("train", "Q", 200), ("heldout", "R", 80)) for n in range(count)]
    rows = [
        {"id": f"{part}-{n}", "part": part, "text": f"K{SQUARES[n % 64]} {piece}{SQUARES[n // 64]}", "label": n % 2}
        for part, piece, n in places
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "mine.parquet")
    return tmp_path / "mine.parquet"


@pytest.mark.usefixtures("experiment")
def test_a_run_says_that_its_labels_are_better_where_they_are_learned(task: Path, tmp_path: Path) -> None:
    """The labels are right on `transfer`, and in about half of the rows of `test`."""
    truth = {row.example.id: row.label for row in loading.rows(f"file:{task}", None)}
    _, split, _ = loading.resolve_and_split(supervisor.Config(task=f"file:{task}", weak="chess-27k", test_size=40))
    answers = truth | {example.id: number % 2 for number, example in enumerate(split.test)}
    table = {"id": list(answers), "probabilities": [[1.0 - answer, float(answer)] for answer in answers.values()]}
    pq.write_table(pa.table(table), tmp_path / "labels.parquet")
    config = student.Config(
        task=f"file:{task}", strong="chess-27k", labels=str(tmp_path / "labels.parquet"), ceiling="none", epochs=1, test_size=40
    )
    found = results.get(student.run(config).run_id)
    right = np.mean([answers[example.id] == truth[example.id] for example in split.test])
    assert found.metrics["gold/transfer/report"] == len(split.transfer)
    assert found.metrics["transfer/label_accuracy"] == 1 and found.metrics["test/weak_accuracy"] == pytest.approx(right)
    assert found.tags[scoring.LABEL_GAP].startswith(f"{1 - right:+.3f} [")
    assert "The weak labels are right in 1.000 of the `transfer` rows" in found.tags["mlflow.note.content"]
