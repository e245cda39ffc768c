"""The same rows from a mirror of the hub and from a user's file: one result, to the last bit."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.models.test_hub import WORDS, made, write
from tests.tasks import mirror
from w2s_mlflow import tasks
from w2s_mlflow.stages import student
from w2s_mlflow.tasks import Rows
from w2s_mlflow.tracking.backend import server
from w2s_mlflow.tracking.results import Result

SST2 = {"sentence": pa.string(), "label": pa.int64(), "idx": pa.int32()}
SIZES: dict[str, Any] = {"train_size": 200, "test_size": 60, "epochs": 1}


def reviews(count: int, seed: int) -> list[dict[str, Any]]:
    drawn = random.Random(seed)
    texts = [" ".join(drawn.choices(WORDS[2:], k=drawn.randint(4, 9))) for _ in range(count)]
    return [{"sentence": text, "label": int("good" in text.split()), "idx": number} for number, text in enumerate(texts)]


@pytest.fixture
def hub_mirror(tmp_path: Path) -> Path:
    for split, count in (("train", 400), ("validation", 300)):
        mirror.write(tmp_path / "mirror", "nyu-mll/glue/sst2", split, SST2, reviews(count, count))
    return tmp_path / "mirror"


def export(rows: Rows, file: Path) -> Path:
    """A user's file of a task's rows."""
    parts = {"train": rows.train, "heldout": rows.heldout}
    table = [
        {"id": row.example.id, "text": row.example.segments[0], "label": row.label, "group": row.example.group, "part": part}
        for part, found in parts.items()
        for row in found
    ]
    random.Random(0).shuffle(table)
    file.parent.mkdir(exist_ok=True)
    pq.write_table(pa.Table.from_pylist(table), file)
    return file


def results_of(result: Result) -> tuple[Any, ...]:
    metrics = {name: value for name, value in result.metrics.items() if name.startswith(("test/", "validation/", "train/"))}
    predicted = result.predictions("test")
    return result.fingerprint, result.tags["w2s.data"], metrics, predicted.ids, predicted.probabilities_NC.tobytes()


@pytest.mark.slow
@pytest.mark.usefixtures("experiment")
def test_mirror_and_file_are_one_result_to_the_last_bit(
    hub_mirror: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = write(made("llama"), tmp_path / "mini")
    given = SIZES | {"weak": f"{checkpoint}:1", "strong": str(checkpoint)}
    of_mirror = student.run(student.Config(task="sst2", data_dir=str(hub_mirror), **given))
    file = export(tasks.find("sst2").load(hub_mirror), tmp_path / "mine" / "sst2.parquet")
    of_file = student.Config(task=f"file:{file}", **given)
    assert student.run(of_file).run_id == of_mirror.run_id  # nothing was trained twice

    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "another")
    server.forget()
    again = student.run(of_file)
    assert again.run_id != of_mirror.run_id
    assert results_of(again) == results_of(of_mirror)
    assert {"test/ceiling_accuracy", "test/accuracy", "train/loss"} <= set(again.metrics)
