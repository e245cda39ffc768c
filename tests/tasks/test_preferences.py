"""Reward modelling on small tables of the hubs' schemas: what a pair is, whose order is drawn, and what is left out."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.tasks import mirror
from w2s_mlflow import tasks
from w2s_mlflow.exceptions import ConfigError
from w2s_mlflow.records import Row, Rows

HH = {"chosen": pa.string(), "rejected": pa.string()}
NOTED = pa.struct(
    {"id": pa.string(), "post": pa.string(), "title": pa.string(), "subreddit": pa.string(), "site": pa.string()}
    | {"article": pa.string()}
)
SUMMARY = pa.struct({"text": pa.string(), "policy": pa.string(), "note": pa.string()})
COMPARED = {
    **{"info": NOTED, "summaries": pa.list_(SUMMARY), "choice": pa.int32(), "worker": pa.string(), "batch": pa.string()},
    **{"split": pa.string(), "extra": pa.struct({"confidence": pa.int32()})},
}
MESSAGES = pa.list_(pa.struct({"content": pa.string(), "role": pa.string()}))
BINARIZED = {
    **{"prompt": pa.string(), "prompt_id": pa.string(), "chosen": MESSAGES, "rejected": MESSAGES, "messages": MESSAGES},
    **{"score_chosen": pa.float64(), "score_rejected": pa.float64()},
}


def every(rows: Rows) -> list[Row]:
    return [*rows.train, *rows.heldout]


def right(row: Row) -> str:
    return row.example.candidates[row.label]


def wrong(row: Row) -> str:
    return row.example.candidates[1 - row.label]


def numbered(rows: Rows) -> list[int]:
    """The number of each row's group, counted from the first row."""
    groups = [row.example.group for row in every(rows)]
    return [groups.index(group) for group in groups]


# --- helpful and harmless ---------------------------------------------------------------------------------------------


def dialogue(*turns: str) -> str:
    names = ("Human", "Assistant")
    return "".join(f"\n\n{names[number % 2]}: {turn}" for number, turn in enumerate(turns))


def hh(directory: Path, train: Sequence[tuple[str, str]], test: Sequence[tuple[str, str]]) -> Rows:
    for split, pairs in (("train", train), ("test", test)):
        mirror.write(directory, "Anthropic/hh-rlhf/default", split, HH, [dict(zip(HH, pair, strict=True)) for pair in pairs])
    return tasks.find("hh_rlhf").load(directory)


def test_hh_parts_at_the_last_answer_that_both_have(tmp_path: Path) -> None:
    train = [
        (dialogue("Why?", "Because."), dialogue("Why?", "Beware.")),
        (dialogue("Why?", "Because.", "So?", "So what."), dialogue("Why?", "Because.", "So?", "Nothing.")),
        (dialogue("How?", "Thus.", "And?", "Well."), dialogue("How?", "So.", "Indeed?", "No.")),
        (dialogue("Who?", "Me."), dialogue("Who?", " me. ")),
        ("Human only", "Nobody"),
        (dialogue("Who?", ""), dialogue("Who?", "You.")),
    ]
    rows = hh(tmp_path, train, [(dialogue("why?", "Yes."), dialogue("why?", "No."))])
    assert [row.example.segments for row in rows.train] == [
        ("Human: Why?\n\nAssistant:",),
        ("Human: Why?\n\nAssistant: Because.\n\nHuman: So?\n\nAssistant:",),
        ("Human: How?\n\nAssistant:",),
    ]
    assert [(right(row), wrong(row)) for row in rows.train] == [
        ("Because.", "Beware."),  # "Be" is common, and yet a part of both answers
        ("So what.", "Nothing."),
        ("Thus.\n\nHuman: And?\n\nAssistant: Well.", "So.\n\nHuman: Indeed?\n\nAssistant: No."),
    ]
    assert numbered(rows) == [0, 0, 2, 0]  # by the first question, in whatever case it is asked again
    assert rows.skipped == {
        "has two equal responses": 1,
        "has no common prompt": 1,
        "has an empty text": 1,
    }


def test_the_order_is_drawn_by_what_does_not_know_the_preferred_one(tmp_path: Path) -> None:
    pairs = [(dialogue(f"Question {n}?", f"Good {n}."), dialogue(f"Question {n}?", f"Bad {n}.")) for n in range(600)]
    rows = hh(tmp_path, pairs, [])
    turned = hh(tmp_path / "turned", [(rejected, chosen) for chosen, rejected in pairs], [])
    assert 240 < sum(row.label for row in rows.train) < 360
    for row, other in zip(rows.train, turned.train, strict=True):
        assert right(row).startswith("Good")
        # Were the preferences the other way round, the model would see the same: id, order and texts.
        assert row.example == other.example and row.label == 1 - other.label


def test_pairs_that_people_judged_otherwise_are_left_out(tmp_path: Path) -> None:
    one, two, three = (dialogue("Why?", answer) for answer in ("One.", "Two.", "Three."))
    rows = hh(tmp_path, [(one, two), (two, one), (one, three), (one, three)], [])
    assert [(right(row), wrong(row)) for row in rows.train] == [("One.", "Three.")]
    assert rows.skipped == {"is a duplicate": 2, "has conflicting duplicates": 1}


# --- summaries --------------------------------------------------------------------------------------------------------


def compared(id_: str, texts: Sequence[str], choice: int, **info: str | None) -> dict[str, Any]:
    summaries = [{"text": text, "policy": "p", "note": None} for text in texts]
    return {"info": {"id": id_, **info}, "summaries": summaries, "choice": choice}


def test_summaries_of_posts_and_articles(tmp_path: Path) -> None:
    train = [
        compared("t3_a", [" Short.", " Long."], 1, post="Once upon a time.", title="A tale"),
        compared("t3_a", [" Short.", " Other."], 0, post="Once upon a time.", title="A tale"),
        compared("cnn", [" News.", " Old."], 0, article="It happened."),
        compared("t3_b", [" One.", " Two."], 0, post="once upon  a time.", title=""),
        compared("t3_c", [" One."], 0, post="A post.", title="T"),
        compared("t3_d", [" One.", " Two."], 2, post="A post.", title="T"),
        compared("t3_e", [" One.", " Two."], 0, title="T"),
    ]
    validation = [compared("t3_a", [" Best.", " Worst."], 0, post="Once upon a time!", title="A tale")]
    for split, rows in (("train", train), ("validation", validation)):
        mirror.write(tmp_path, "openai/summarize_from_feedback/comparisons", split, COMPARED, rows)
    found = tasks.find("summarize").load(tmp_path)
    assert [(*row.example.segments, right(row), wrong(row)) for row in every(found)] == [
        ("A tale\nOnce upon a time.\nTL;DR:", "Long.", "Short."),
        ("A tale\nOnce upon a time.\nTL;DR:", "Short.", "Other."),
        ("It happened.\nTL;DR:", "News.", "Old."),
        ("once upon  a time.\nTL;DR:", "One.", "Two."),
        ("A tale\nOnce upon a time!\nTL;DR:", "Best.", "Worst."),
    ]
    assert numbered(found) == [0, 0, 2, 0, 0]  # by the post's id, and by its text
    assert found.skipped == {"does not have two summaries": 1, "has an invalid label": 1, "has neither post nor article": 1}


# --- UltraFeedback ----------------------------------------------------------------------------------------------------


def binarized(prompt: str, chosen: str, rejected: str, scores: tuple[float, float] = (8, 4)) -> dict[str, Any]:
    answers = {
        name: [{"content": prompt, "role": "user"}, {"content": answer, "role": "assistant"}]
        for name, answer in (("chosen", chosen), ("rejected", rejected))
    }
    return {"prompt": prompt, "prompt_id": "x", **answers, "score_chosen": scores[0], "score_rejected": scores[1]}


def test_ultrafeedback_compares_last_answers_with_unequal_scores(tmp_path: Path) -> None:
    unanswered = binarized("Sing.", "La.", "Lo.")
    unanswered["rejected"] = unanswered["rejected"][:1]
    train = [
        binarized("Add 1 and 1.", "2", "3"),
        binarized("add 1  and 1.", "two", "three"),
        binarized("Draw.", "I cannot.", "No.", (5, 5)),
        binarized("Rest.", "Ok.", "ok."),
        unanswered,
    ]
    for split, rows in (("train_prefs", train), ("test_prefs", [binarized("Count.", "1, 2", "2, 1")])):
        mirror.write(tmp_path, "HuggingFaceH4/ultrafeedback_binarized/default", split, BINARIZED, rows)
    found = tasks.find("ultrafeedback").load(tmp_path)
    assert [(*row.example.segments, right(row), wrong(row)) for row in every(found)] == [
        ("Add 1 and 1.", "2", "3"),
        ("add 1  and 1.", "two", "three"),
        ("Count.", "1, 2", "2, 1"),
    ]
    assert numbered(found) == [0, 0, 2]
    assert found.skipped == {"has equal scores": 1, "has two equal responses": 1, "does not end with an answer": 1}


# --- a file -----------------------------------------------------------------------------------------------------------


def write(file: Path, rows: Sequence[Mapping[str, object]]) -> str:
    with file.open("w", newline="", encoding="utf-8") as opened:
        writer = csv.DictWriter(opened, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return f"preferences:{file}"


def test_a_file_of_prompt_chosen_rejected(tmp_path: Path) -> None:
    rows = [
        {"prompt": "Why?", "chosen": "So.", "rejected": "No.", "id": "a", "group": "g", "part": "train"},
        {"prompt": "How?", "chosen": "Thus.", "rejected": "No.", "id": "b", "group": "g", "part": "train"},
        {"prompt": "Who?", "chosen": "Me.", "rejected": "You.", "id": "c", "group": "h", "part": "heldout"},
    ]
    task = tasks.find(write(tmp_path / "mine.csv", rows))
    found = task.load(None)
    assert (task.head, task.key) == ("reward", "mine")
    assert [(row.example.id, *row.example.segments, right(row), wrong(row)) for row in every(found)] == [
        ("a", "Why?", "So.", "No."),
        ("b", "How?", "Thus.", "No."),
        ("c", "Who?", "Me.", "You."),
    ]
    assert numbered(found) == [0, 0, 2] and len(found.heldout) == 1


def test_a_file_without_parts_is_cut_by_its_groups(tmp_path: Path) -> None:
    rows = [{"prompt": f"{n % 100}?", "chosen": f"{n}", "rejected": f"-{n}"} for n in range(300)]
    found = tasks.find(write(tmp_path / "mine.csv", rows)).load(None)
    prompts = [{row.example.segments for row in part} for part in (found.train, found.heldout)]
    assert not prompts[0] & prompts[1] and len(prompts[0] | prompts[1]) == 100 and 8 <= len(prompts[1]) <= 32


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"prompt": "Why?", "chosen": "So."}, "must have the column rejected, but row 1 of {file} has only prompt, chosen"),
        (
            {"prompt": " ", "chosen": "So.", "rejected": "No."},
            "must have text in the column prompt, but row 1 of {file} has no value",
        ),
        (
            {"prompt": "Why?", "chosen": "So.", "rejected": "No.", "part": "dev"},
            "must have train or heldout in the column part, but row 1 of {file} has 'dev'",
        ),
    ],
)
def test_a_wrong_file_is_named_with_its_row(row: dict[str, str], said: str, tmp_path: Path) -> None:
    name = write(tmp_path / "mine.csv", [row])
    with pytest.raises(ConfigError) as raised:
        tasks.find(name).load(None)
    assert str(raised.value) == f"--task {name} {said.format(file=tmp_path / 'mine.csv')}"
