"""A user's own file: what its rows become, and one sentence for each way it can be wrong."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from w2s_mlflow import tasks
from w2s_mlflow.data import splits
from w2s_mlflow.exceptions import ConfigError
from w2s_mlflow.records import NO_LABEL, Rows

ROWS: list[dict[str, Any]] = [
    {"text": "a cat sat", "text_pair": "an animal sat", "label": 1, "group": "cats", "id": "r1", "part": "train"},
    {"text": "a cat ran", "text_pair": "nothing ran", "label": 0, "group": "cats", "id": "r2", "part": "train"},
    {"text": "a dog ate", "text_pair": "a dog was fed", "label": 1, "group": "dogs", "id": "r3", "part": "heldout"},
]


def parquet(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    pq.write_table(pa.Table.from_pylist(list(rows)), path)


def csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    lines = [",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def json_lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


WRITERS: dict[str, Callable[[Path, Sequence[Mapping[str, Any]]], None]] = {
    ".parquet": parquet,
    ".csv": csv,
    ".jsonl": json_lines,
}


def load(path: Path) -> Rows:
    return tasks.find(f"file:{path}").load(None)


@pytest.mark.parametrize("suffix", WRITERS)
def test_every_kind_of_file_gives_the_same_rows(tmp_path: Path, suffix: str) -> None:
    WRITERS[suffix](tmp_path / f"mine{suffix}", ROWS)
    found = load(tmp_path / f"mine{suffix}")
    assert [(row.example.id, row.example.segments, row.label) for row in found.train] == [
        ("r1", ("a cat sat", "an animal sat"), 1),
        ("r2", ("a cat ran", "nothing ran"), 0),
    ]
    assert [row.example.id for row in found.heldout] == ["r3"]
    assert found.train[0].example.group == found.train[1].example.group != found.heldout[0].example.group


def test_the_key_of_a_cut_is_the_stem_so_that_a_file_may_be_moved(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    for directory in (tmp_path, tmp_path / "elsewhere"):
        parquet(directory / "mine.parquet", ROWS)
    here, there = (tasks.find(f"file:{directory / 'mine.parquet'}") for directory in (tmp_path, tmp_path / "elsewhere"))
    assert here.key == there.key == "mine" and here.name != there.name


def test_without_parts_a_fifth_of_the_groups_is_held_out_whatever_the_order(tmp_path: Path) -> None:
    rows = [{"text": f"text {n}", "label": n % 2} for n in range(1000)]
    parquet(tmp_path / "a.parquet", rows)
    parquet(tmp_path / "b.parquet", rows[::-1])
    one, other = load(tmp_path / "a.parquet"), load(tmp_path / "b.parquet")
    assert {row.example.id for row in one.heldout} == {row.example.id for row in other.heldout}
    assert 150 < len(one.heldout) < 250 and len(one.train) + len(one.heldout) == 1000


def test_equal_texts_are_one_group_beside_the_file_s_own(tmp_path: Path) -> None:
    rows = [
        {"text": "Same  words", "label": 1, "id": "a", "group": "one"},
        {"text": "same words", "label": 1, "id": "b", "group": "two"},
        {"text": "others", "label": 0, "id": "c", "group": "two"},
        {"text": "alone", "label": 0, "id": "d", "group": "three"},
    ]
    parquet(tmp_path / "mine.parquet", rows)
    found = load(tmp_path / "mine.parquet")
    groups = {row.example.id: row.example.group for row in (*found.train, *found.heldout)}
    assert groups["a"] == groups["b"] == groups["c"] != groups["d"]


def test_without_labels_rows_have_none(tmp_path: Path) -> None:
    parquet(tmp_path / "mine.parquet", [{"text": f"text {n}"} for n in range(100)])
    found = load(tmp_path / "mine.parquet")
    assert {row.label for row in (*found.train, *found.heldout)} == {NO_LABEL}
    splits.pool("mine", found)


WRONG: dict[str, tuple[list[dict[str, Any]], str]] = {
    "no text": ([{"words": "a", "label": 1}], "must have the column text, but row 1 of"),
    "empty text": (
        [{"text": "a", "label": 1}, {"text": " ", "label": 0}],
        "must have text in the column text, but row 2 of FILE has no value",
    ),
    "label": ([{"text": "a", "label": 2}], "must have 0 or 1 in the column label, but row 1 of FILE has '2'"),
    "a word": ([{"text": "a", "label": "yes"}], "must have 0 or 1 in the column label, but row 1 of FILE has 'yes'"),
    "wide digit": ([{"text": "a", "label": "\uff11"}], "must have 0 or 1 in the column label, but row 1 of FILE has '\uff11'"),
    "part": (
        [{"text": "a", "label": 1, "part": "dev"}],
        "must have train or heldout in the column part, but row 1 of FILE has 'dev'",
    ),
    "ids": (
        [{"text": "a", "label": 1, "id": "x"}, {"text": "b", "label": 0, "id": "x"}],
        "unique values in the column id, but 'x' occurs twice in FILE, in the rows 1 and 2",
    ),
    "half an emoji": (
        [{"text": "a", "label": 1}, {"text": "b \ud83d", "label": 0}],
        "must have valid Unicode text in the column text, but row 2 of FILE has 'b \\ud83d'",
    ),
    "a list": ([{"text": "a", "id": ["x", 1]}], "must have text in the column id, but row 1 of FILE has the list ['x', 1]"),
    "an object": ([{"text": {"a": 1}}], "must have text in the column text, but row 1 of FILE has the object {'a': 1}"),
    "zero-width text": (
        [{"text": "a"}, {"text": "\u200b\u200d\ufeff"}],
        "with at least one visible character in the column text, but row 2 of FILE has '\\u200b\\u200d\\ufeff'",
    ),
    "a mark alone": (
        [{"text": "a", "text_pair": "\u0301"}],
        "with at least one visible character in the column text_pair, but row 1 of FILE has",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_row_is_named_in_one_sentence(tmp_path: Path, name: str) -> None:
    rows, sentence = WRONG[name]
    json_lines(tmp_path / "mine.jsonl", rows)
    with pytest.raises(ConfigError) as said:
        load(tmp_path / "mine.jsonl")
    sentence = sentence.replace("FILE", str(tmp_path / "mine.jsonl"))
    assert f"--task file:{tmp_path}" in str(said.value) and sentence in str(said.value) and "\n" not in str(said.value)


@pytest.mark.parametrize("suffix", WRITERS)
def test_a_file_that_is_not_what_its_suffix_says(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"mine{suffix}"
    path.write_bytes(b'\x89PNG "\xff\xfe\n\x00,')
    with pytest.raises(ConfigError, match=f"must be a valid {suffix} file, but .* cannot be read") as said:
        load(path)
    assert "\n" not in str(said.value)


@pytest.mark.parametrize(
    ("name", "sentence"), [("mine.xlsx", "name ends in .parquet, .csv, .jsonl"), ("none.csv", "must be an existing file")]
)
def test_no_such_file(tmp_path: Path, name: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        tasks.find(f"file:{tmp_path / name}")


def test_a_csv_with_a_ragged_line(tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text("text,label\na,1\nb,c,0\n")
    with pytest.raises(ConfigError, match="more values than the header"):
        load(tmp_path / "mine.csv")


def test_one_class_alone_cannot_be_learned(tmp_path: Path) -> None:
    parquet(tmp_path / "mine.parquet", [{"text": f"text {n}", "label": 1} for n in range(100)])
    with pytest.raises(ConfigError, match="must have rows of both classes"):
        splits.pool("mine", load(tmp_path / "mine.parquet"))
