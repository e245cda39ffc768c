"""SciTail and SNLI on small tables of the hub's schema, by hand."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pytest

from tests.tasks import mirror
from w2s_mlflow import tasks
from w2s_mlflow.data import splits
from w2s_mlflow.exceptions import ConfigError
from w2s_mlflow.tasks import Rows, inference

SCITAIL, SNLI = "allenai/scitail/tsv_format", "stanfordnlp/snli/plain_text"
Written = tuple[str, str, str | int]


def write(directory: Path, table: str, part: str, rows: Sequence[Written], label: pa.DataType) -> None:
    schema = {"premise": pa.string(), "hypothesis": pa.string(), "label": label}
    mirror.write(directory, table, part, schema, [dict(zip(schema, row, strict=True)) for row in rows])


def load(directory: Path, name: str, train: Sequence[Written], heldout: Sequence[Written]) -> Rows:
    table, label = {"scitail": (SCITAIL, pa.string()), "snli": (SNLI, pa.int64())}[name]
    write(directory, table, "train", train, label)
    write(directory, table, "validation", heldout, label)
    return tasks.find(name).load(directory)


def key(part: str, premise: str, hypothesis: str) -> str:
    texts = "\x1f".join((premise, hypothesis))
    return f"{part}-{hashlib.sha256(texts.encode()).hexdigest()[:16]}"


def test_scitail_by_hand(tmp_path: Path) -> None:
    train: list[Written] = [
        ("Iron rusts in damp air.", "Damp air makes iron rust.", "entails"),
        ("iron rusts in  damp air.", "Damp air makes gold rust.", "neutral"),
        ("Bees carry pollen.", "Damp air makes iron rust.", "neutral"),
        ("Bees carry pollen.", "Bees see.", "-"),
    ]
    heldout: list[Written] = [
        ("Bees carry pollen.", "Bees pollinate.", "entails"),
        ("Ice floats.", "Bees carry pollen.", "neutral"),
    ]
    rows = load(tmp_path, "scitail", train, heldout)
    assert [row.label for row in rows.train] == [1, 0, 0] and [row.label for row in rows.heldout] == [1, 0]
    assert [row.example.segments for row in rows.train + rows.heldout] == [row[:2] for row in (*train[:3], *heldout)]
    assert [row.example.id for row in rows.train] == [key("train", *row[:2]) for row in train[:3]]
    groups = [row.example.group for row in rows.train + rows.heldout]
    # Rows 0 and 1 share a premise, rows 0 and 2 a hypothesis, and rows 2 and 3 a premise. The last has a premise as hypothesis.
    assert len(set(groups[:4])) == 1 and groups[4] not in groups[:4]
    assert rows.skipped == {"has an invalid label": 1}


def test_snli_without_gold_is_left_out(tmp_path: Path) -> None:
    train: list[Written] = [
        ("A man sleeps.", "A person rests.", 0),
        ("A man sleeps.", "A man dreams.", 1),
        ("A man sleeps.", "A man runs.", 2),
        ("A girl swims.", "A girl is at sea.", -1),
    ]
    heldout: list[Written] = [("A girl swims.", "A girl is dry.", 2), ("A girl swims.", "A girl is young.", -1)]
    rows = load(tmp_path, "snli", train, heldout)
    assert [row.label for row in rows.train] == [1, 0, 0] and [row.label for row in rows.heldout] == [0]
    assert len({row.example.group for row in rows.train}) == 1
    assert [row.example.id for row in rows.heldout] == [key("heldout", "A girl swims.", "A girl is dry.")]
    assert rows.skipped == {"has an invalid label": 2}


def test_pair_that_stands_twice_is_one_row_unless_its_labels_differ(tmp_path: Path) -> None:
    train: list[Written] = [
        ("A.", "B.", 0),
        ("A.", "B.", 0),
        ("C.", "D.", 0),
        ("C.", "D.", 1),
        ("E.", "F.", 1),
        ("E.", "F.", 2),
    ]
    rows = load(tmp_path, "snli", train, [("A.", "B.", 2)])
    # Neutral and contradiction are one class here, so that E, F has one label.
    assert [(row.example.segments, row.label) for row in rows.train] == [(("A.", "B."), 1), (("E.", "F."), 0)]
    assert rows.skipped == {"is a duplicate": 3, "has conflicting duplicates": 1}
    assert rows.heldout[0].example.group == rows.train[0].example.group


def test_premise_of_both_parts_is_held_out_alone(tmp_path: Path) -> None:
    train: list[Written] = [(f"The {n}th boat sank.", "It sank.", n % 3) for n in range(8)]
    heldout: list[Written] = [(f"The {n}th boat sank.", "Nothing sank.", 2 * (n % 2)) for n in range(6, 14)]
    pool = splits.pool("snli", load(tmp_path, "snli", train, heldout))
    assert pool.train_rows() == 6 and sum(map(len, pool.selection)) + pool.test_rows() == 8
    assert {row.example.segments[0] for group in pool.train for row in group} == {f"The {n}th boat sank." for n in range(6)}


@pytest.mark.parametrize(("name", "table", "wrong"), [("scitail", SCITAIL, pa.int64()), ("snli", SNLI, pa.string())])
def test_label_of_another_kind_is_named(name: str, table: str, wrong: pa.DataType, tmp_path: Path) -> None:
    write(tmp_path, table, "validation", [("A.", "B.", 1 if wrong == pa.int64() else "1")], wrong)
    with pytest.raises(ConfigError) as error:
        tasks.find(name).load(tmp_path)
    owner, config = table.rsplit("/", 1)
    kind = {"scitail": "text", "snli": "integer"}[name]
    said = f"{owner} ({config}), split validation must have a column label of type {kind}, got {wrong}"
    assert str(error.value) == said


def test_every_task_is_pinned() -> None:
    sources = {task.name: task.source for task in inference.TASKS}
    assert sources == {
        "scitail": "allenai/scitail (tsv_format) at 0cc43532",
        "snli": "stanfordnlp/snli (plain_text) at cdb5c3d5",
    }
