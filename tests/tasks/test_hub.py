"""Tables from a mirror and from the hub: the same rows, and one sentence where there are none or they are of another shape."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.tasks import mirror
from w2s_mlflow import tasks
from w2s_mlflow.data import splits
from w2s_mlflow.exceptions import ConfigError
from w2s_mlflow.local import hub
from w2s_mlflow.tasks import _hub
from w2s_mlflow.tasks._groups import by_group
from w2s_mlflow.tasks._hub import Table, TaskSource
from w2s_mlflow.tasks._rows import ParsedRow, Source

SCHEMA = {"text": pa.string(), "label": pa.int64(), "extra": pa.string()}
ROWS = [{"text": f"text {number}", "label": number % 2, "extra": "-"} for number in range(7)]


def table(config: str = "default", revision: str = "0" * 40, **columns: str) -> Table:
    return Table(path="owner/name", config=config, revision=revision, columns=columns or {"text": "text", "label": "integer"})


def never(*_: object) -> pa.Table:
    pytest.fail("the hub was asked")


# --- mirror -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", ["default", "small"])
def test_mirror_gives_the_columns_that_are_read(config: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_hub, "_from_hub", never)
    monkeypatch.setattr(_hub, "BATCH", 3)
    mirror.write(tmp_path, f"owner/name/{config}", "train", SCHEMA, ROWS)
    found = list(_hub.rows(table(config), "train", "t", tmp_path))
    assert found == [{"text": row["text"], "label": row["label"]} for row in ROWS]


COMMIT = "0" * 40
LAYOUTS = {
    # configuration -> the files in which the rows stand, in their order
    "one file": ("small", ["owner/name/small/train-00000-of-00001.parquet"]),
    "two files": ("small", [f"owner/name/small/train-0000{number}-of-00002-1f2e.parquet" for number in range(2)]),
    "converted": ("small", [f"owner/name/small/train/000{number}.parquet" for number in range(2)]),
    "no configurations": ("default", ["owner/name/data/train-00000-of-00001.parquet"]),
    "no directory": ("default", ["owner/name/train.parquet"]),
    "cache": ("small", [f"datasets--owner--name/snapshots/{COMMIT}/small/train-00000-of-00001.parquet"]),
}


def lay(mirror: Path, files: list[str]) -> None:
    share = -(-len(ROWS) // len(files))
    for number, file in enumerate(files):
        (mirror / file).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(ROWS[number * share :][:share], pa.schema(SCHEMA)), mirror / file)


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_mirror_may_be_laid_out_as_it_is_downloaded(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_hub, "_from_hub", never)
    config, files = LAYOUTS[name]
    lay(tmp_path, files)
    (tmp_path / files[0]).with_name("train_extra-00000-of-00001.parquet").write_bytes(b"of another split")
    found = list(_hub.rows(table(config), "train", "t", tmp_path))
    assert found == [{"text": row["text"], "label": row["label"]} for row in ROWS]


def test_a_cached_branch_is_that_of_its_last_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_hub, "_from_hub", never)
    lay(tmp_path, [f"datasets--owner--name/snapshots/{COMMIT}/small/train/0000.parquet"])
    reference = tmp_path / "datasets--owner--name/refs" / _hub.CONVERTED
    reference.parent.mkdir(parents=True)
    reference.write_text(COMMIT)
    assert len(list(_hub.rows(table("small", revision=_hub.CONVERTED), "train", "t", tmp_path))) == len(ROWS)


@pytest.mark.parametrize(("files", "number"), [(LAYOUTS["two files"][1], "00001"), (LAYOUTS["converted"][1], "0000")])
def test_a_mirror_that_lacks_a_file_is_refused(files: list[str], number: str, tmp_path: Path) -> None:
    lay(tmp_path, files)
    next(tmp_path.rglob(f"*{number}*.parquet")).unlink()
    with pytest.raises(ConfigError, match=f"number {number} is missing"):
        list(_hub.rows(table("small"), "train", "t", tmp_path))


def test_a_damaged_file_of_a_mirror_is_named(tmp_path: Path) -> None:
    lay(tmp_path, (files := LAYOUTS["one file"][1]))
    (tmp_path / files[0]).write_bytes(b"no parquet")
    with pytest.raises(ConfigError, match=f"^--task t needs {tmp_path / files[0]}, which cannot be read: "):
        list(_hub.rows(table("small"), "train", "t", tmp_path))


def test_a_mirrored_repository_in_another_format_is_read_by_datasets(local_hub: Path) -> None:
    file = local_hub / "owner/name/part/train.jsonl"
    file.parent.mkdir(parents=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    found = list(_hub.rows(table(), "train", "t", local_hub))
    assert found == [{"text": row["text"], "label": row["label"]} for row in ROWS]


KINDS: Mapping[str, tuple[list[pa.DataType], pa.DataType]] = {
    "text": ([pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())], pa.int64()),
    "integer": ([pa.int64(), pa.int32(), pa.uint8(), pa.dictionary(pa.int8(), pa.int64())], pa.float64()),
    "number": ([pa.float32(), pa.float64(), pa.int64()], pa.string()),
    "boolean": ([pa.bool_()], pa.int64()),
    "list": ([pa.list_(pa.string()), pa.large_list(pa.int64())], pa.string()),
    "struct": ([pa.struct({"a": pa.int64()})], pa.list_(pa.int64())),
}


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_of_columns(kind: str) -> None:
    legal, other = KINDS[kind]
    for found in legal:
        _hub.check_columns(pa.schema([("value", found)]), {"value": kind}, "here")
    with pytest.raises(ConfigError) as error:
        _hub.check_columns(pa.schema([("value", other)]), {"value": kind}, "here")
    assert str(error.value) == f"here must have a column value of type {kind}, got {other}"


def test_column_that_is_missing_is_named_before_any_row_is_read(tmp_path: Path) -> None:
    mirror.write(tmp_path, "owner/name/default", "train", SCHEMA, ROWS)
    with pytest.raises(ConfigError) as error:
        _hub.rows(table(text="text", answer="integer"), "train", "t", tmp_path)
    assert str(error.value) == "owner/name, split train must have the column answer, but it has only text, label, extra"


# --- hub --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def local_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory in which `datasets` finds data sets by their hub id, as it does for a path that exists; its own cache."""
    import datasets

    monkeypatch.setattr(hub, "detect_offline", lambda: None)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


CARD = """---
configs:
- config_name: sst2
  data_files:
  - {split: train, path: sst2/train.parquet}
  - {split: validation, path: sst2/validation.parquet}
dataset_info:
- config_name: sst2
  features:
  - {name: sentence, dtype: string}
  - {name: label, dtype: {class_label: {names: {'0': negative, '1': positive}}}}
  - {name: idx, dtype: int32}
---
"""


def test_hub_and_mirror_give_the_same_rows_and_digest(local_hub: Path) -> None:
    import datasets

    schema = {"sentence": pa.string(), "label": pa.int64(), "idx": pa.int32()}
    for part, label in (("train", 0), ("validation", 1)):
        rows = [{"sentence": f"{part} film {n}", "label": (n + label) % 2, "idx": n} for n in range(12)]
        mirror.write(local_hub, "nyu-mll/glue/sst2", part, schema, rows)
    (local_hub / "nyu-mll/glue/README.md").write_text(CARD)
    bars = datasets.is_progress_bar_enabled()
    sst2 = tasks.find("sst2")
    from_hub, from_mirror = sst2.load(None), sst2.load(local_hub)
    assert from_hub == from_mirror and len(from_hub.train) == len(from_hub.heldout) == 12
    assert splits.digest(from_hub.train + from_hub.heldout) == splits.digest(from_mirror.train + from_mirror.heldout)
    assert any((local_hub / "cache").rglob("*.arrow"))  # it did go through `datasets`
    assert datasets.is_progress_bar_enabled() is bars


def test_table_that_is_nowhere_says_where_it_was_looked_for(local_hub: Path) -> None:
    with pytest.raises(ConfigError) as error:
        tasks.find("qqp").load(local_hub)
    said, file = str(error.value), local_hub / "nyu-mll/glue/qqp/validation.parquet"
    assert said.startswith(f"--task qqp needs nyu-mll/glue (qqp), split validation, which cannot be loaded (no file {file}; ")
    assert "; the hub and its cache: Couldn't reach 'nyu-mll/glue' on the Hub" in said and "\n" not in said


@pytest.mark.parametrize(
    ("error", "said"),
    [(OSError("gated\nask for access"), "gated"), (KeyError("train"), "'train'"), (TimeoutError(), "TimeoutError")],
)
def test_what_the_hub_raises_is_one_line(error: Exception, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> pa.Table:
        raise error

    monkeypatch.setattr(_hub, "_from_hub", fail)
    with pytest.raises(ConfigError) as raised:
        _hub.arrow(table(), "train", "t", None)
    where = "--task t needs owner/name, split train, which cannot be loaded"
    assert str(raised.value) == f"{where} (the hub and its cache: {said})"


def test_hub_is_asked_for_the_pinned_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    asked: list[Any] = []

    def load_dataset(*args: object, **options: object) -> datasets.Dataset:
        asked.append((args, options))
        return datasets.Dataset.from_list(ROWS)

    monkeypatch.setattr(hub, "detect_offline", lambda: None)
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    for config, revision in (("default", "abc"), ("small", "abc"), ("small", _hub.CONVERTED)):
        assert len(list(_hub.rows(table(config, revision=revision), "test", "t", None))) == 7
    assert asked == [
        (("owner/name",), {"split": "test", "revision": "abc", "name": None}),
        (("owner/name",), {"split": "test", "revision": "abc", "name": "small"}),
        (("owner/name",), {"split": "test", "revision": "refs/convert/parquet", "data_dir": "small"}),
    ]


# --- parts ------------------------------------------------------------------------------------------------------------


def read(row: Source, part: str) -> ParsedRow:
    return ParsedRow(f"{part}-{row['text']}", (row["text"],), row["label"])


def test_heldout_part_of_another_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_hub, "_from_hub", never)
    mirror.write(tmp_path, "owner/name/default", "train", SCHEMA, ROWS[:4])
    mirror.write(tmp_path, "owner/name/other", "test", SCHEMA, ROWS[4:])
    rows = TaskSource(table=table(), heldout="test", heldout_table=table("other")).load("t", read, tmp_path)
    assert [row.example.id for row in rows.train] == [f"train-text {number}" for number in range(4)]
    assert [row.example.id for row in rows.heldout] == [f"heldout-text {number}" for number in range(4, 7)]


def test_source_names_commit_or_branch() -> None:
    assert str(TaskSource(table=table(revision="0123456789" * 4))) == "owner/name at 01234567"
    assert (
        str(TaskSource(table=table("small", revision="refs/convert/parquet"))) == "owner/name (small) at refs/convert/parquet"
    )


def test_one_part_is_cut(tmp_path: Path) -> None:
    file = mirror.write(tmp_path, "owner/name/default", "train", SCHEMA, [{**ROWS[0], "text": str(n)} for n in range(100)])
    rows = TaskSource(table=table(), heldout=None).load("t", read, tmp_path)
    assert len(rows.train) + len(rows.heldout) == pq.read_metadata(file).num_rows and 5 <= len(rows.heldout) <= 40


def test_group_larger_than_the_test_part_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_hub, "TEST_SIZE", 3)
    mirror.write(tmp_path, "owner/name/default", "train", SCHEMA, ROWS)

    def by_half(row: Source, part: str) -> ParsedRow:
        return ParsedRow(
            row["text"], (row["text"],), row["label"], by_group("first four" if row["text"] < "text 4" else "last three")
        )

    mirror.write(tmp_path, "owner/name/default", "validation", SCHEMA, [])
    rows = TaskSource(table=table()).load("t", by_half, tmp_path)
    assert [row.example.id for row in rows.train] == ["text 4", "text 5", "text 6"]
    assert rows.skipped == {"is in a group of more than 3 rows": 4}
