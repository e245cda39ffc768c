"""One table has one meaning: the three formats give the same rows, and a refusal names file, row and column."""

from __future__ import annotations

import csv
import datetime
import json
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from w2s_mlflow import tasks
from w2s_mlflow.data import splits, table_formats
from w2s_mlflow.data.tables import Kind, UserTable, as_key, as_text
from w2s_mlflow.exceptions import ConfigError
from w2s_mlflow.records import Row, Rows

READ: dict[str, Kind] = {"text": "text", "id": "key"}


def read(path: Path, columns: Mapping[str, Kind] = READ) -> list[Mapping[str, Any]]:
    return [row for _, row in UserTable.open("--task x", path).rows(columns)]


def refusal(path: Path, columns: Mapping[str, Kind] = READ) -> str:
    with pytest.raises(ConfigError) as said:
        read(path, columns)
    assert "\n" not in str(said.value)
    return str(said.value).replace(str(path), "FILE")


# --- the three formats ------------------------------------------------------------------------------------------------

SPACES = st.sampled_from(["", "", " ", "\t", "\u3000"])
BLANKS = st.sampled_from(["", " ", None])
WORDS = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"], exclude_characters="\r\x00"), min_size=1, max_size=8)
TEXTS = st.builds("word {} {}{}".format, st.integers(0, 99), WORDS, SPACES)
GROUPS = st.one_of(BLANKS, st.sampled_from(["cats", "dogs", "1", "1.0"]), st.builds("{}g{}".format, SPACES, st.integers(0, 3)))
LABELS = st.sampled_from(["0", "1", "1.0", "True", "false", "", None])
ROWS = st.lists(
    st.fixed_dictionaries({"text": TEXTS, "text_pair": st.one_of(BLANKS, TEXTS), "group": GROUPS, "label": LABELS}),
    min_size=1,
    max_size=8,
)


def written(directory: Path, rows: Sequence[Mapping[str, str | None]]) -> dict[str, Path]:
    """The rows in each format: missing values are null, or an empty field in CSV; JSON and parquet hold typed labels, too."""
    files = {suffix: directory / f"mine{suffix}" for suffix in (".csv", ".jsonl", ".parquet")}
    with files[".csv"].open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows({name: "" if value is None else value for name, value in row.items()} for row in rows)
    typed = [dict(row) | {"label": TYPED.get(row["label"] or "", row["label"])} for row in rows]
    files[".jsonl"].write_text("".join(json.dumps(row) + "\n" for row in typed), encoding="utf-8")
    labels = [None if as_text(row["label"]) is None else float(row["label"] in ("1", "1.0", "True")) for row in rows]
    columns = {name: [row[name] for row in rows] for name in rows[0] if name != "label"}
    pq.write_table(pa.table({**columns, "label": pa.array(labels, pa.float64())}), files[".parquet"])
    return files


TYPED: dict[str, Any] = {"0": 0, "1": 1, "1.0": 1.0, "True": True, "false": False}


def same(rows: Rows) -> tuple[str, list[tuple[str, int]], Mapping[str, int]]:
    every: tuple[Row, ...] = rows.train + rows.heldout
    return splits.digest(every), sorted((row.example.group, row.label) for row in every), rows.skipped


@settings(max_examples=12, deadline=None)
@given(ROWS)
def test_the_formats_give_the_same_digest_groups_and_labels(rows: list[dict[str, str | None]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        found = [same(tasks.find(f"file:{path}").load(None)) for path in written(Path(directory), rows).values()]
    assert found[0] == found[1] == found[2]


@settings(max_examples=50, deadline=None)
@given(st.one_of(st.integers(), st.booleans(), st.sampled_from([1.0, -3.0, 0.5, 1e22]), WORDS))
def test_a_key_has_one_spelling_however_it_is_stored(value: object) -> None:
    text = str(value)
    assert as_key(as_key(text)) == as_key(text) == as_key(f" {text} ")


@pytest.mark.parametrize(
    ("same", "key"),
    [
        (("1", "1.0", "1.00", " 1"), "1"),
        (("True", "true", "TRUE"), "true"),
        (("1.10",), "1.10"),
        (("0x1",), "0x1"),
        (("-2.0",), "-2"),
    ],
)
def test_keys(same: Sequence[str], key: str) -> None:
    assert {as_key(text) for text in same} == {key}


def test_blank_cells_are_none_in_every_format(tmp_path: Path) -> None:
    rows: list[dict[str, str | None]] = [{"text": "a", "id": cell} for cell in ("", "  ", None)]
    (tmp_path / "t.csv").write_text("text,id\na,\na,  \na,\n", encoding="utf-8")
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"text": "a"}\n', encoding="utf-8")
    pq.write_table(pa.table({"text": ["a", "a"], "id": [float("nan"), None]}), tmp_path / "t.parquet")
    for suffix in (".csv", ".jsonl", ".parquet"):
        assert {row["id"] for row in read(tmp_path / f"t{suffix}")} == {None}


# --- only the requested columns are read ------------------------------------------------------------------------------


def test_columns_that_are_not_requested_may_hold_anything(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"text,x,x\nwell,\xe9,2\n")
    (tmp_path / "t.jsonl").write_text('{"text": "well", "x": ' + "9" * 5000 + ', "x": "\\ud83d"}\n', encoding="utf-8")
    late = pa.array([10**15], pa.timestamp("ms"))
    pq.write_table(pa.table([["well"], late, [b"\xe9"]], names=["text", "x", "x"]), tmp_path / "t.parquet")
    for suffix in (".csv", ".jsonl", ".parquet"):
        assert read(tmp_path / f"t{suffix}") == [{"text": "well", "id": None}]


def test_a_long_field_and_a_byte_order_mark_are_read(tmp_path: Path) -> None:
    long = "word " * 40_000
    (tmp_path / "t.csv").write_text(f"\ufefftext\n{long}\n", encoding="utf-8")
    (tmp_path / "t.jsonl").write_text("\ufeff" + json.dumps({"text": long}) + "\n", encoding="utf-8")
    assert read(tmp_path / "t.csv") == read(tmp_path / "t.jsonl") == [{"text": long, "id": None}]


def test_numbers_and_dates_are_the_text_of_a_csv_file(tmp_path: Path) -> None:
    day = datetime.date(2026, 5, 1)
    pq.write_table(pa.table({"text": [7, 8], "id": [day, day]}), tmp_path / "t.parquet")
    assert read(tmp_path / "t.parquet") == [{"text": "7", "id": "2026-05-01"}, {"text": "8", "id": "2026-05-01"}]
    (tmp_path / "t.jsonl").write_text('{"text": "a", "id": ' + "9" * 5000 + "}", encoding="utf-8")
    assert read(tmp_path / "t.jsonl")[0]["id"] == "9" * 5000


# --- refusals ---------------------------------------------------------------------------------------------------------

DEEP = "[" * 100_000 + "]" * 100_000
LINES = {
    "the third line": ('{"text": "a"}\n\n{"text": "b",}\n', "line 3, column 14: "),
    "no object": ('{"text": "a"}\n[1]\n', "line 2: a line must be a JSON object, got [1]"),
    "deep": (
        '{"text": "a"}\n{"x": ' + DEEP + "}\n",
        "line 2: it has too many lists or objects inside",
    ),
    "twice": ('{"text": "a"}\n{"text": "b", "text": "c"}\n', "line 2 has two columns of the name text"),
}


@pytest.mark.parametrize("name", LINES)
def test_a_wrong_line_of_json_is_named(name: str, tmp_path: Path) -> None:
    content, said = LINES[name]
    (tmp_path / "t.jsonl").write_text(content, encoding="utf-8")
    assert refusal(tmp_path / "t.jsonl").startswith(f"--task x must be a valid .jsonl file, but FILE cannot be read: {said}")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be"])
def test_a_file_in_another_encoding_is_refused_with_the_advice_to_use_utf_8(encoding: str, tmp_path: Path) -> None:
    for suffix, content in {".csv": "text\na word\n", ".jsonl": '{"text": "a word"}\n'}.items():
        (tmp_path / f"t{suffix}").write_bytes(content.encode(encoding))
        name = r"UTF-16( or UTF-32)?" if encoding.startswith("utf-16") else r"(UTF-16 or )?UTF-32"
        assert re.search(rf"FILE cannot be read: it is encoded in {name}; save it in UTF-8$", refusal(tmp_path / f"t{suffix}"))


def test_two_columns_of_one_name_are_refused_in_every_format(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("text,id,text\na,1,b\n", encoding="utf-8")
    pq.write_table(pa.table([["a"], ["b"]], names=["text", "text"]), tmp_path / "t.parquet")
    for suffix in (".csv", ".parquet"):
        assert refusal(tmp_path / f"t{suffix}").endswith("has two columns of the name text")


def test_a_cell_that_cannot_be_converted_is_named(tmp_path: Path) -> None:
    late = pa.array([1, 10**15], pa.timestamp("ms"))
    pq.write_table(pa.table({"text": pa.array([b"a", b"\xff"]), "id": late}), tmp_path / "t.parquet")
    said = "--task x must have {} in the column {}, but row 2 of FILE has "
    assert refusal(tmp_path / "t.parquet", {"id": "key"}).startswith(said.format("values that can be read", "id"))
    assert refusal(tmp_path / "t.parquet", {"text": "text"}) == said.format("valid Unicode text", "text") + r"'\udcff'"


@pytest.mark.parametrize("place", ["rows", "bytes"])
def test_a_parquet_file_that_declares_more_than_it_holds(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pq.write_table(pa.table({"text": ["a word"] * 50_000}), tmp_path / "t.parquet")
    if place == "rows":
        monkeypatch.setattr(table_formats, "MOST_ROWS", 49_999)
        assert "FILE cannot be read: it declares 50000 rows" in refusal(tmp_path / "t.parquet")
    else:
        monkeypatch.setattr(table_formats, "SMALL", 10)
        monkeypatch.setattr(table_formats, "EXPANSION", 0)
        assert "bytes in the column text, but has" in refusal(tmp_path / "t.parquet")


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=4))
def test_a_damaged_parquet_file_is_read_or_refused(flips: list[tuple[int, int]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "t.parquet")
        pq.write_table(pa.table({"text": ["a", "b"], "id": [1.0, None]}), path)
        content = bytearray(path.read_bytes())
        for place, byte in flips:
            content[place % len(content)] = byte
        path.write_bytes(content)
        try:
            read(path)
        except ConfigError as error:
            assert str(path) in str(error)
