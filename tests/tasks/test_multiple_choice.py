"""Multiple choice on small tables of the hub's schema: contexts, options drawn, groups and what is left out, by hand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.tasks import mirror
from w2s_mlflow import tasks
from w2s_mlflow.tasks import Rows, multiple_choice

TEXT, TEXTS = pa.string(), pa.list_(pa.string())
RACE = {"example_id": TEXT, "article": TEXT, "answer": TEXT, "question": TEXT, "options": TEXTS}
ENDINGS = dict.fromkeys(("ending0", "ending1", "ending2", "ending3"), TEXT)
SWAG_TEXTS = dict.fromkeys(("video-id", "fold-ind", "startphrase", "sent1", "sent2", "gold-source"), TEXT)
SWAG = {**SWAG_TEXTS, **ENDINGS, "label": pa.int64()}
HELLASWAG = {
    "ind": pa.int32(),
    **dict.fromkeys(("activity_label", "ctx_a", "ctx_b", "ctx"), TEXT),
    "endings": TEXTS,
    **dict.fromkeys(("source_id", "split", "split_type", "label"), TEXT),
}
SCIQ = dict.fromkeys(("question", "distractor3", "distractor1", "distractor2", "correct_answer", "support"), TEXT)
OPTIONS = ["w1", "right", "w2", "w3"]
MANY = 900
ARTICLE = " ".join(f"Sentence {number} of an article." for number in range(4))  # long enough to be a key in all rows


def load(directory: Path, name: str, table: str, schema: mirror.Schema, train: Sequence[tuple[Any, ...]]) -> Rows:
    """The task's rows; the held-out part is written empty."""
    for part, rows in (("train", train), ("validation", ())):
        mirror.write(directory, table, part, schema, [dict(zip(schema, row, strict=True)) for row in rows])
    return tasks.find(name).load(directory)


def draws_evenly(rows: Rows) -> None:
    """The right option about half the time, and each wrong one about a sixth."""
    drawn = Counter((row.label, row.example.segments[-1]) for row in rows.train)
    assert set(drawn) == {(1, "right"), (0, "w1"), (0, "w2"), (0, "w3")} and sum(drawn.values()) == MANY
    assert 390 < drawn[1, "right"] < 510 and all(100 < drawn[0, wrong] < 200 for wrong in ("w1", "w2", "w3"))


@pytest.mark.parametrize(("name", "config"), [("race", "all"), ("race_high", "high"), ("race_middle", "middle")])
def test_race_pairs_article_and_question_with_an_option(name: str, config: str, tmp_path: Path) -> None:
    train: list[tuple[Any, ...]] = [("h1.txt", ARTICLE, "B", f"question {n}?", OPTIONS) for n in range(MANY)]
    train += [("h1.txt", ARTICLE, "C", "twice?", ["a", "x", "X ", "b"]), ("h1.txt", ARTICLE, "E", "none?", OPTIONS)]
    rows = load(tmp_path, name, f"ehovy/race/{config}", RACE, train)
    draws_evenly(rows)
    assert rows.train[0].example.segments[:2] == (ARTICLE, "question 0?")
    assert len({row.example.group for row in rows.train}) == 1
    assert rows.skipped == {"has the right option twice": 1, "has an invalid label": 1}


def test_swag_groups_by_video_and_start(tmp_path: Path) -> None:
    train = [(f"v{n}", "1", f"start {n}", "s1", "s2", "gold", *OPTIONS, 1) for n in range(MANY - 2)]
    train += [("v0", "2", "another start", "s1", "s2", "gold", *OPTIONS, 1), ("v", "3", "start 1", "", "", "", *OPTIONS, 1)]
    rows = load(tmp_path, "swag", "allenai/swag/regular", SWAG, train)
    draws_evenly(rows)
    groups = [row.example.group for row in rows.train]
    assert groups[0] == groups[-2] and groups[1] == groups[-1] and len(set(groups)) == MANY - 2
    assert rows.train[5].example.segments[:-1] == ("start 5",)


def test_hellaswag_leaves_out_rows_without_a_label(tmp_path: Path) -> None:
    train = [(n, "act", "a", "b", f"ctx {n}", OPTIONS, f"s{n // 2}", "train", "indomain", "1") for n in range(MANY)]
    train += [(MANY, "act", "a", "b", "ctx", OPTIONS, "s", "test", "indomain", "")]
    rows = load(tmp_path, "hellaswag", "Rowan/hellaswag/default", HELLASWAG, train)
    draws_evenly(rows)
    assert rows.train[3].example.id == "train-3" and rows.train[3].example.segments[:-1] == ("ctx 3",)
    groups = [row.example.group for row in rows.train]
    assert groups[0::2] == groups[1::2] and len(set(groups)) == MANY // 2
    assert rows.skipped == {"has an invalid label": 1}


def test_sciq_without_support_has_no_empty_segment(tmp_path: Path) -> None:
    train = [(f"q{n}?", "w3", "w1", "w2", "right", "Support." if n == 0 else " ") for n in range(MANY)]
    train += [("same?", "Right", "w1", "w2", "right", ""), ("q1?", "w3", "w1", "w2", "right", "")]
    rows = load(tmp_path, "sciq", "allenai/sciq/default", SCIQ, train)
    draws_evenly(rows)
    assert rows.train[0].example.segments[:-1] == ("Support.", "q0?")
    assert rows.train[1].example.segments[:-1] == ("q1?",)
    assert rows.skipped == {"has the right option twice": 1, "is a duplicate": 1}


def test_id_knows_nothing_of_the_right_option(tmp_path: Path) -> None:
    options = ["a", "b", "c", "d"]
    ids = set()
    for number, right in enumerate(options):
        others = [option for option in options if option != right]
        row = ("q?", *others, right, "")
        ids.add(load(tmp_path / str(number), "sciq", "allenai/sciq/default", SCIQ, [row]).train[0].example.id)
    assert len(ids) == 1


def test_sources_are_pinned_where_the_hub_keeps_tables() -> None:
    assert {task.name: task.source for task in multiple_choice.TASKS} == {
        "race": "ehovy/race (all) at 2fec9fd8",
        "race_high": "ehovy/race (high) at 2fec9fd8",
        "race_middle": "ehovy/race (middle) at 2fec9fd8",
        "swag": "allenai/swag (regular) at refs/convert/parquet",
        "hellaswag": "Rowan/hellaswag at 218ec52e",
        "sciq": "allenai/sciq at 2c94ad3e",
    }
