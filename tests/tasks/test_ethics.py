"""ETHICS on small tables of the hub's schema: sets kept together, classes, and the order of a comparison."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from tests.tasks import mirror
from w2s_mlflow import tasks
from w2s_mlflow.tasks import Rows

LABELLED = {"label": pa.int64(), "scenario": pa.string()}
DEONTOLOGY = {**LABELLED, "excuse": pa.string()}
UTILITARIANISM = {"baseline": pa.string(), "less_pleasant": pa.string()}
Written = Sequence[tuple[Any, ...]]


def load(directory: Path, name: str, schema: mirror.Schema, train: Written, heldout: Written = ()) -> Rows:
    for part, rows in (("train", train), ("validation", heldout)):
        found = [dict(zip(schema, row, strict=True)) for row in rows]
        mirror.write(directory, f"hendrycks/ethics/{name}", part, schema, found)
    return tasks.find(f"ethics_{name}").load(directory)


def test_justice_keeps_a_set_together(tmp_path: Path) -> None:
    train = [
        (1, "I pay Ann because she works."),
        (0, "I pay Ann because she sings."),
        (0, "I tip Bob because she works"),
        (1, "I used to feed my cat daily but she died."),
        (0, "I used to feed my cat daily but it rained."),
        (1, "Nobody is like these."),
        (2, "No label."),
    ]
    rows = load(tmp_path, "justice", LABELLED, train, [(1, "i pay  ann because she is kind.")])
    groups = [row.example.group for row in (*rows.train, *rows.heldout)]
    assert [groups.index(group) for group in groups] == [0, 0, 0, 3, 3, 5, 0]
    assert [row.label for row in rows.train] == [1, 0, 0, 1, 0, 1]
    assert rows.train[0].example.segments == ("I pay Ann because she works.",)
    assert rows.skipped == {"has an invalid label": 1}


def test_deontology_groups_by_scenario(tmp_path: Path) -> None:
    train = [(1, "Will you cook?", "No, I am ill."), (0, "Will you cook?", "No, I am tall."), (0, "Sing!", "No, I am ill.")]
    rows = load(tmp_path, "deontology", DEONTOLOGY, [*train, train[0]], [(1, "will you  cook?", "No, it burns.")])
    groups = [row.example.group for row in (*rows.train, *rows.heldout)]
    assert [groups.index(group) for group in groups] == [0, 0, 2, 0]
    assert [(row.label, *row.example.segments) for row in rows.train] == train
    assert rows.skipped == {"is a duplicate": 1}


def test_utilitarianism_compares_in_an_order_that_is_drawn(tmp_path: Path) -> None:
    train = [(f"Good {n}.", f"Bad {n}.") for n in range(600)]
    awkward = [("Same.", "same. "), ("A walk.", "A run."), ("A run.", "A walk."), ("Good 0.", "Worse.")]
    rows = load(tmp_path, "utilitarianism", UTILITARIANISM, [*train, *awkward])
    for row in rows.train:
        assert row.example.candidates[row.label].startswith("Good") and len(row.example.segments) == 1
    assert len(rows.train) == 601 and 230 < sum(row.label for row in rows.train) < 370
    assert rows.train[0].example.group == rows.train[-1].example.group != rows.train[1].example.group
    assert rows.skipped == {"compares equal texts": 1, "is a duplicate": 1, "has conflicting duplicates": 1}


def test_id_of_a_comparison_knows_nothing_of_the_better(tmp_path: Path) -> None:
    pair = ("A walk.", "A run.")
    one, other = (
        load(tmp_path / str(n), "utilitarianism", UTILITARIANISM, [p]).train[0] for n, p in enumerate((pair, pair[::-1]))
    )
    assert one.example == other.example and one.label == 1 - other.label
