"""Each SuperGLUE task on a small table of the hub's schema: texts, classes, ids, spans and groups by hand."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.tasks import mirror
from w2s_mlflow import tasks
from w2s_mlflow.tasks import Row, Rows, superglue

TEXT, LABEL, IDX, TEXTS = pa.string(), pa.int64(), pa.int32(), pa.list_(pa.string())
PAIR = {"premise": TEXT, "hypothesis": TEXT, "idx": IDX, "label": LABEL}
COPA = {**dict.fromkeys(("premise", "choice1", "choice2", "question"), TEXT), "idx": IDX, "label": LABEL}
MULTIRC_IDX = pa.struct([("paragraph", IDX), ("question", IDX), ("answer", IDX)])
MULTIRC = {**dict.fromkeys(("paragraph", "question", "answer"), TEXT), "idx": MULTIRC_IDX, "label": LABEL}
RECORD_IDX = pa.struct([("passage", IDX), ("query", IDX)])
RECORD = {"passage": TEXT, "query": TEXT, "entities": TEXTS, "answers": TEXTS, "idx": RECORD_IDX}
SPANS = dict.fromkeys(("start1", "start2", "end1", "end2"), IDX)
WIC = {**dict.fromkeys(("word", "sentence1", "sentence2"), TEXT), **SPANS, "idx": IDX, "label": LABEL}
WSC_SPANS = {"span1_index": IDX, "span2_index": IDX, "span1_text": TEXT, "span2_text": TEXT}
WSC = {"text": TEXT, **WSC_SPANS, "idx": IDX, "label": LABEL}
BOOLQ = {"question": TEXT, "passage": TEXT, "idx": IDX, "label": LABEL}
Written = Sequence[tuple[Any, ...]]


def load(directory: Path, name: str, schema: mirror.Schema, train: Written, heldout: Written = (), config: str = "") -> Rows:
    """The task's rows of two written parts, each row in the schema's order of columns."""
    for part, rows in (("train", train), ("validation", heldout)):
        found = [dict(zip(schema, row, strict=True)) for row in rows]
        mirror.write(directory, f"aps/super_glue/{config or name}", part, schema, found)
    return tasks.find(name).load(directory)


def every(rows: Rows) -> Mapping[str, Row]:
    return {row.example.id: row for row in (*rows.train, *rows.heldout)}


def labels(rows: Rows) -> dict[str, int]:
    return {id_: row.label for id_, row in every(rows).items()}


def together(rows: Rows) -> list[set[str]]:
    """The ids of each group of more than one row."""
    groups = defaultdict(set)
    for id_, row in every(rows).items():
        groups[row.example.group].add(id_)
    return sorted((ids for ids in groups.values() if len(ids) > 1), key=sorted)


def test_cb_is_entailment_against_the_rest(tmp_path: Path) -> None:
    train = [("It rained.", "It was wet.", 0, 0), ("it  rained.", "It was dry.", 1, 1), ("He left.", "He ran.", 2, 2)]
    train += [("She sang.", "She sings.", 3, -1)]
    rows = load(tmp_path, "cb", PAIR, train, [("He left.", "He is gone.", 0, 0)])
    assert labels(rows) == {"train-0": 1, "train-1": 0, "train-2": 0, "heldout-0": 1}
    assert every(rows)["train-0"].example.segments == ("It rained.", "It was wet.")
    assert together(rows) == [{"heldout-0", "train-2"}, {"train-0", "train-1"}]
    assert rows.skipped == {"has an invalid label": 1}


def test_copa_pairs_the_right_or_the_other_choice(tmp_path: Path) -> None:
    train = [(f"Cup {number} fell.", "right", "wrong", "effect", number, 0) for number in range(300)]
    train += [(f"Cup {number - 300} fell.", "wrong", "right", "cause", number, 1) for number in range(300, 600)]
    rows = load(
        tmp_path, "copa", COPA, [*train, ("He left.", "a", "b", "why", 600, 0), ("He left.", "a", "b", "cause", 601, -1)]
    )
    asked = {"effect": "What happened as a result?", "cause": "What was the cause?"}
    for row in train:
        found = every(rows)[f"train-{row[4]}"]
        assert found.example.segments == (f"{row[0]} {asked[row[3]]}", "right" if found.label else "wrong")
    assert 230 < sum(labels(rows).values()) < 370
    assert together(rows) == sorted(({f"train-{number}", f"train-{number + 300}"} for number in range(300)), key=sorted)
    assert rows.skipped == {"asks for neither cause nor effect": 1, "has an invalid label": 1}


def test_multirc_is_one_row_per_answer(tmp_path: Path) -> None:
    def idx(*numbers: int) -> dict[str, int]:
        return dict(zip(("paragraph", "question", "answer"), numbers, strict=True))

    train = [("Ann met Bob.", "Who met Bob?", "Ann", idx(0, 0, 0), 1), ("Ann met Bob.", "Who met Bob?", "Eve", idx(0, 0, 1), 0)]
    rows = load(tmp_path, "multirc", MULTIRC, train, [("Eve slept.", "Who slept?", "Eve", idx(0, 0, 0), 1)])
    assert labels(rows) == {"train-0-0-0": 1, "train-0-0-1": 0, "heldout-0-0-0": 1}
    assert every(rows)["train-0-0-1"].example.segments == ("Ann met Bob.", "Who met Bob? Eve")
    assert together(rows) == [{"train-0-0-0", "train-0-0-1"}]


def test_record_fills_the_place_with_a_right_or_a_wrong_entity(tmp_path: Path) -> None:
    entities, answers = ["Oslo", "OSLO", "City of  Oslo", "Bergen", "bergen", "Rome"], ["Oslo", "City of Oslo"]
    text = "Of all the towns in the country, one is known to have grown in the last hundred years, and another one has not."
    passage = f"{text}\n@highlight\nBergen shrank."
    train = [(passage, "@placeholder grew.", entities, answers, {"passage": 7, "query": number}) for number in range(600)]
    train += [
        (passage, "Nothing grew.", entities, answers, {"passage": 7, "query": 600}),
        (passage, "@placeholder fell.", ["Oslo", "oslo"], ["Oslo"], {"passage": 7, "query": 601}),
        (passage, "@placeholder fell.", ["Oslo", "Rome"], [], {"passage": 7, "query": 602}),
    ]
    rows = load(tmp_path, "record", RECORD, train)
    found = Counter((row.label, row.example.segments[1]) for row in rows.train)
    # Differences in case or space alone make no other entity: OSLO is right, and Bergen one wrong entity, not two.
    assert {(label, text.removesuffix(" grew.")) for label, text in found} == {
        (1, "Oslo"),
        (1, "City of Oslo"),
        (0, "Bergen"),
        (0, "Rome"),
    }
    assert all(110 < count < 190 for count in found.values())
    assert {row.example.segments[0] for row in rows.train} == {f"{text} Bergen shrank."}
    assert len({row.example.group for row in rows.train}) == 1 and "train-7-0" in labels(rows)
    assert rows.skipped == {"has no placeholder": 1, "has no correct entity or no incorrect entity": 2}


def test_wic_marks_spans_at_the_start_and_the_end(tmp_path: Path) -> None:
    train = [
        ("run", "Run home.", "They ran", 0, 5, 3, 8, 0, 1),
        ("home", "run  home.", "A home run.", 5, 2, 9, 6, 1, 0),
        ("far", "Too far.", "So far.", 4, 3, 9, 6, 2, 1),
        ("far", "Too far.", "So far.", 4, 3, 4, 6, 3, 1),
    ]
    rows = load(tmp_path, "wic", WIC, train, [("ran", "They ran", "He ran off.", 5, 3, 8, 6, 0, 1)])
    assert {id_: row.example.segments for id_, row in every(rows).items()} == {
        "train-0": ("run: *Run* home.", "They *ran*"),
        "train-1": ("home: run  *home*.", "A *home* run."),
        "heldout-0": ("ran: They *ran*", "He *ran* off."),
    }
    assert labels(rows) == {"train-0": 1, "train-1": 0, "heldout-0": 1}
    assert together(rows) == [{"train-0", "train-1", "heldout-0"}]  # by the sentence, whichever of the two it is
    assert rows.skipped == {"has a span outside its text": 2}


WSC_TEXT = 'Ann said, "Bob\'s dog (Rex) bit me," and he ran.'
WSC_CASES = {
    # first word and text of each span -> the text with its marks
    (0, "Ann", 8, "he"): '*Ann* said, "Bob\'s dog (Rex) bit me," and *he* ran.',
    (2, "bob's dog", 8, "he"): 'Ann said, "*Bob\'s dog* (Rex) bit me," and *he* ran.',
    (4, "Rex", 6, "me"): 'Ann said, "Bob\'s dog (*Rex*) bit *me*," and he ran.',
    (8, "he", 0, "Ann"): '*Ann* said, "Bob\'s dog (Rex) bit me," and *he* ran.',
    (1, "Ann", 8, "he"): None,
    (0, "Eve", 8, "he"): None,
    (0, "Ann", 10, "he"): None,
    (0, "Ann", -1, "he"): None,
    (0, "Ann", 8, " "): None,
}


@pytest.mark.parametrize("spans", WSC_CASES)
def test_wsc_marks_spans_beside_punctuation(spans: tuple[int, str, int, str], tmp_path: Path) -> None:
    first, noun, second, pronoun = spans
    row = (WSC_TEXT, first, second, noun, pronoun, 3, 1)
    rows = load(tmp_path, "wsc", WSC, [row], config="wsc.fixed")
    marked = WSC_CASES[spans]
    assert [row.example.segments for row in rows.train] == ([(marked, f"{pronoun}: {noun}")] if marked else [])
    assert rows.skipped == ({} if marked else {"has a span that is not in its text": 1})


def test_boolq_groups_by_passage(tmp_path: Path) -> None:
    train = [("is it", "It is.", 0, 1), ("is it not", "it  is.", 1, 0), ("who", "He.", 2, 1)]
    rows = load(tmp_path, "boolq", BOOLQ, train, [("was it", "It is.", 0, 0)])
    assert labels(rows) == {"train-0": 1, "train-1": 0, "train-2": 1, "heldout-0": 0}
    assert every(rows)["train-0"].example.segments == ("It is.", "is it")
    assert together(rows) == [{"train-0", "train-1", "heldout-0"}]


def test_sources_and_human_scores() -> None:
    names = {"wsc": "wsc.fixed"}
    assert {task.source for task in superglue.TASKS} == {
        f"aps/super_glue ({names.get(task.name, task.name)}) at 3de24cf8" for task in superglue.TASKS
    }
    assert {task.name: task.human and task.human.score for task in superglue.TASKS} == {
        "cb": 0.989, "copa": 1.0, "multirc": 0.818, "record": 0.917, "wic": 0.8, "wsc": 1.0, "boolq": 0.89,
    }  # fmt: skip
