"""Labels from outside in place of a supervisor's, no ceiling, and tasks whose truth nobody knows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.conftest import SMALL, runs
from w2s_mlflow.analysis import build
from w2s_mlflow.cli import catalog
from w2s_mlflow.data import label_files, loading
from w2s_mlflow.exceptions import ConfigError
from w2s_mlflow.records import Example
from w2s_mlflow.registry import plugin
from w2s_mlflow.stages import student, supervisor
from w2s_mlflow.tracking.results import Result

pytestmark = pytest.mark.usefixtures("experiment")

SIZES: dict[str, Any] = SMALL | {"strong": "chess-27k", "epochs": 1}


def write(path: Path, ids: Sequence[str], probabilities: Sequence[Sequence[float]]) -> str:
    pq.write_table(pa.table({"id": list(ids), "probabilities": [list(row) for row in probabilities]}), path)
    return str(path)


def cut() -> dict[str, tuple[Example, ...]]:
    return loading.resolve_and_split(student.Config(**SIZES).resolved())[1].parts()


def given(path: Path, *parts: str, certain: float = 0.8) -> str:
    """A file that says class 1 of every second row."""
    ids = [example.id for part in parts for example in cut()[part]]
    return write(path, ids, [(1 - certain, certain) if n % 2 else (certain, 1 - certain) for n in range(len(ids))])


def trained(path: str, **options: Any) -> Result:
    return student.run(student.Config(**SIZES | {"labels": path, "ceiling": "none"} | options))


def test_no_supervisor_and_no_ceiling_is_trained_and_there_is_no_pgr(tmp_path: Path) -> None:
    result = trained(given(tmp_path / "people.parquet", "transfer", "transfer_validation"))
    assert [run.data.tags["w2s.stage"] for run in runs()] == ["student"]
    assert result.params["weak"] == "labels:people" and result.params["method"] == "baseline"
    assert result.tags["w2s.pgr_status"] == "no weak" and not any("pgr" in name for name in result.metrics)
    assert "test/accuracy" in result.metrics and "test/weak_accuracy" not in result.metrics


def test_labels_of_test_rows_are_the_floor(tmp_path: Path) -> None:
    path = given(tmp_path / "people.parquet", "transfer", "transfer_validation", "test")
    result = trained(path, ceiling="gold")
    said = dict(zip(*(pq.read_table(path).to_pydict()[name] for name in ("id", "probabilities")), strict=True))
    truth = pq.read_table(result.artifact("gold/test.parquet")).to_pydict()
    right = [np.argmax(said[id_]) == gold for id_, gold in zip(truth["id"], truth["gold"], strict=True)]
    assert result.metrics["test/weak_accuracy"] == np.mean(right) and "test/ceiling_accuracy" in result.metrics
    assert result.tags["w2s.pgr_status"] in ("ok", "undetermined")
    outcomes = build.load([result]).outcomes
    assert outcomes["weak_accuracy"].tolist() == [np.mean(right)] and outcomes["weak"].tolist() == ["labels:people"]


def test_equal_labels_in_another_place_are_reused_and_others_are_not(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    parts = ("transfer", "transfer_validation")
    first = trained(given(tmp_path / "people.parquet", *parts))
    moved = trained(given(tmp_path / "there" / "crowd.parquet", *parts))
    other = trained(given(tmp_path / "sure.parquet", *parts, certain=0.9))
    assert moved.run_id == first.run_id != other.run_id and moved.reused


def test_the_confidence_loss_takes_them_as_well(tmp_path: Path) -> None:
    result = trained(given(tmp_path / "people.parquet", "transfer", "transfer_validation"), method="confidence")
    assert result.params["method"] == "confidence" and result.params["loss"] == "confidence"


@pytest.mark.slow
def test_a_student_without_a_ceiling_has_a_supervisor_s_accuracy_and_can_have_its_ceiling_later() -> None:
    options = student.Config(**SIZES, weak="chess-27k", ceiling="none")
    without = student.run(options)
    assert without.tags["w2s.pgr_status"] == "no ceiling" and "test/weak_accuracy" in without.metrics
    table = plugin("tables", "pgr", "").table(build.load([without]).outcomes)
    assert len(table) == 1 and table["pgr"].isna().all() and table["pgr_status"].isna().all()
    later = student.run(student.Config(**SIZES, weak="chess-27k"))
    assert later.run_id == without.run_id and "test/ceiling_accuracy" in later.metrics


def test_a_task_without_truth_reports_agreement_alone(tmp_path: Path) -> None:
    words = [f"white king on {file}{rank}" for file in "abcdefgh" for rank in "12345678"]
    texts = [{"text": f"{word} {n}"} for word in words for n in range(3)]
    pq.write_table(pa.Table.from_pylist(texts), tmp_path / "mine.parquet")
    sizes: dict[str, Any] = {"task": f"file:{tmp_path / 'mine.parquet'}", "train_size": 100, "test_size": 15}
    catalog.write_rows(catalog.Config(**sizes, out=str(tmp_path / "rows.parquet")))
    rows = pq.read_table(tmp_path / "rows.parquet").to_pydict()
    path = write(tmp_path / "people.parquet", rows["id"], [(0.3, 0.7)] * len(rows["id"]))
    result = trained(path, **sizes)
    assert result.tags["w2s.pgr_status"] == "no ground truth"
    assert "test/agreement" in result.metrics and "test/accuracy" not in result.metrics
    assert not any(name.startswith("gold/") for name in result.metrics)
    with pytest.raises(ConfigError, match="rows of supervision have no label, but supervision needs labels"):
        supervisor.run(supervisor.Config(**sizes, weak="chess-27k"))


WRONG: dict[str, tuple[dict[str, list[Any]], str]] = {
    "column": ({"id": ["a"], "probs": [[0.5, 0.5]]}, "must have the column probabilities, but .* has only id, probs"),
    "twice": (
        {"id": ["a", "a"], "probabilities": [[0.5, 0.5]] * 2},
        "must have unique values in the column id, but 'a' occurs twice",
    ),
    "classes": (
        {"id": ["a"], "probabilities": [[0.2, 0.3, 0.5]]},
        "must have 2 probabilities in the column probabilities, but row 1 of .*people.parquet has the list",
    ),
    "sum": ({"id": ["a"], "probabilities": [[0.5, 0.6]]}, "sum to 1 in the column probabilities, but row 1 of .* has"),
    "negative": ({"id": ["a"], "probabilities": [[-0.5, 1.5]]}, "sum to 1 in the column probabilities, but row 1 of .* has"),
    "not a number": (
        {"id": ["a"], "probabilities": [[float("nan"), 1.0]]},
        "sum to 1 in the column probabilities, but row 1 of .* has",
    ),
    "no id": ({"id": [None], "probabilities": [[0.5, 0.5]]}, "must have an id in the column id, but row 1 of .* has no value"),
    "booleans": ({"id": ["a"], "probabilities": [[True, False]]}, "must have 2 probabilities in the column probabilities"),
    "missing": ({"id": ["a"], "probabilities": [[0.5, 0.5]]}, "has none for 100 of 100 rows, such as"),
}


def test_hard_labels_and_ids_may_be_whole_numbers(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": [10.0, 9.0], "probabilities": [[1, 0], [0, 1]]}), tmp_path / "people.parquet")
    labels = label_files.read(str(tmp_path / "people.parquet"), 2)
    assert labels.ids == ("10", "9") and labels.probabilities_NC.tolist() == [[1, 0], [0, 1]]


@pytest.mark.parametrize("name", WRONG)
def test_wrong_labels_are_one_sentence_and_nothing_is_written(tmp_path: Path, name: str) -> None:
    columns, sentence = WRONG[name]
    pq.write_table(pa.table(columns), tmp_path / "people.parquet")
    with pytest.raises(ConfigError, match=f"--labels .*{sentence}"):
        trained(str(tmp_path / "people.parquet"), generative_epochs=1)
    assert runs() == []


@pytest.mark.parametrize("content", [None, b"no parquet"])
def test_no_such_file_of_labels(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "people.parquet"
    if content:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"--labels must be .*parquet file"):
        trained(str(path))


def test_rows_to_label_have_no_label(tmp_path: Path) -> None:
    counts = catalog.write_rows(catalog.Config(train_size=200, test_size=150, out=str(tmp_path / "rows.parquet")))
    table = pq.read_table(tmp_path / "rows.parquet")
    assert table.column_names == ["id", "part", "segments", "candidates"]
    assert counts == {part: len(examples) for part, examples in cut().items()}
    assert [path.name for path in tmp_path.iterdir()] == ["rows.parquet"]
