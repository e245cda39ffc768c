"""What holds for made-up rows holds for real ones: many answers to a question, many questions to a paragraph."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from w2s_mlflow import split
from w2s_mlflow.records import Example, Row, Rows

pytestmark = pytest.mark.data


@pytest.fixture(scope="module")
def rows() -> Rows:
    """MultiRC from the mirror: the paragraph is the group."""
    if "W2S_DATA_DIR" not in os.environ:
        pytest.skip("needs W2S_DATA_DIR, a mirror of public data sets")
    folder = Path(os.environ["W2S_DATA_DIR"]) / "aps" / "super_glue" / "multirc"
    train, heldout = (_rows(folder / f"{part}.parquet", part) for part in ("train", "validation"))
    return Rows(train, heldout)


def _rows(path: Path, part: str) -> tuple[Row, ...]:
    columns = pq.read_table(path).to_pydict()
    texts = zip(columns["paragraph"], columns["question"], columns["answer"], columns["label"], strict=True)
    return tuple(
        Row(Example(f"{part}-{number}", paragraph, (paragraph, question, answer)), label)
        for number, (paragraph, question, answer, label) in enumerate(texts)
    )


def test_no_paragraph_stands_on_two_sides(rows: Rows) -> None:
    cut = split.cut(split.pool("multirc", rows), seed=0, train_size=1000, test_size=200)
    parts = (cut.supervision, cut.supervision_validation, cut.transfer, cut.transfer_validation, cut.selection, cut.test)
    groups = [{example.group for example in part} for part in parts]
    assert all(groups) and sum(map(len, groups)) == len(set.union(*groups))


def test_halves_are_as_large_as_whole_paragraphs_allow(rows: Rows) -> None:
    cut = split.cut(split.pool("multirc", rows), seed=1, train_size=1000, test_size=200)
    largest = max(sum(row.example.group == group for row in rows.train) for group in {row.example.group for row in rows.train})
    for half in (cut.supervision + cut.supervision_validation, cut.transfer + cut.transfer_validation):
        assert 500 - largest < len(half) <= 500
    assert len(cut.test) <= 200
