"""Drafts to rows: what is left out, draws by hash, and texts without white space at their ends."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from w2s_mlflow.records import NO_LABEL, Example, Row, Rows
from w2s_mlflow.tasks import _rows
from w2s_mlflow.tasks._groups import by_group
from w2s_mlflow.tasks._rows import (
    ParsedRow,
    SkippedRow,
    Source,
    assemble,
    draw,
    with_enough_heldout,
    without_large_groups,
)


def read(row: Source, part: str) -> ParsedRow:
    """A row as it stands: `(id, text, label, groups)` by column."""
    return ParsedRow(
        f"{part}-{row['id']}",
        (row["text"],),
        row["label"],
        tuple(key for name in row.get("groups", ()) for key in by_group(name)),
    )


def row(id_: str, text: str, label: int = 0, *groups: str) -> dict[str, Any]:
    return {"id": id_, "text": text, "label": label, "groups": groups}


def group_by_id(rows: Rows) -> dict[str, str]:
    return {row.example.id: row.example.group for row in (*rows.train, *rows.heldout)}


# --- draws --------------------------------------------------------------------------------------------------


def test_draws_are_even_and_differ_by_purpose() -> None:
    first = [draw("order", str(number), 4) for number in range(4000)]
    other = [draw("distractor", str(number), 4) for number in range(4000)]
    for drawn in (first, other):
        assert set(drawn) == set(range(4)) and all(abs(count - 1000) < 4 * 27.4 for count in Counter(drawn).values())
    assert abs(sum(one == two for one, two in zip(first, other, strict=True)) - 1000) < 4 * 27.4
    assert first == [draw("order", str(number), 4) for number in range(4000)]


@pytest.mark.parametrize("label", [2, -1, None, "1", float("nan")])
def test_label_that_is_no_class_leaves_the_row_out(label: object) -> None:
    assert _rows.of_class({0: 1, 1: 0}, 0) == 1
    with pytest.raises(SkippedRow, match="has an invalid label"):
        _rows.of_class({0: 1, 1: 0}, label)


@settings(deadline=None)
@given(st.text(), st.sampled_from(["segments", "candidates"]))
def test_no_text_begins_or_ends_with_white_space(text: str, place: str) -> None:
    """The head reads the last token of a decoder: a space of its own, in held-out rows of SST-2 as the hub has them."""

    def with_spaces(source: Source, part: str) -> ParsedRow:
        texts: Mapping[str, Any] = {"segments": ("A.",), "candidates": ("this", "that"), place: (f"\u2003{text}a \n", " b ")}
        return ParsedRow(source["id"], label=0, **texts)

    example = assemble(with_spaces, [row("a", "A.")], []).train[0].example
    assert getattr(example, place) == (f"{text}a".strip(), "b")


# --- rows -------------------------------------------------------------------------------------------------------------


def test_what_stands_twice_is_one_row_and_two_labels_are_none() -> None:
    train = [row("a", "A."), row("b", "B.", 1), row("a", "A."), row("b", "B.", 0), row("b", "B.", 1), row("c", "C.", 1)]
    rows = assemble(read, train, [row("a", "A.", 1)])
    assert [(row.example.id, row.label) for row in rows.train] == [("train-a", 0), ("train-c", 1)]
    # The other part has ids of its own, and one text is one group across both.
    assert [(row.example.id, row.label) for row in rows.heldout] == [("heldout-a", 1)]
    assert rows.heldout[0].example.group == rows.train[0].example.group
    assert rows.skipped == {"is a duplicate": 3, "has conflicting duplicates": 1}


def test_what_a_reader_leaves_out_is_counted_by_reason() -> None:
    def picky(source: Source, part: str) -> ParsedRow:
        if source["text"].startswith("-"):
            raise SkippedRow("starts with a dash")
        return read(source, part)

    train = [row("a", "A."), row("b", "- B."), row("c", " \n"), row("d", "D.", -2), row("e", "E.", NO_LABEL)]
    rows = assemble(picky, train, [row("a", "- A."), row("b", "B.")])
    assert group_by_id(rows).keys() == {"train-a", "train-e", "heldout-b"}
    assert rows.skipped == {"starts with a dash": 2, "has an empty text": 1, "has an invalid label": 1}


@pytest.mark.parametrize("missing", ["segments", "candidates"])
def test_text_that_is_null_is_empty(missing: str) -> None:
    def with_null(source: Source, part: str) -> ParsedRow:
        texts: Mapping[str, Any] = {"segments": ("A.",), "candidates": ("this", "that"), missing: ("A.", None)}
        return ParsedRow(source["id"], label=0, **texts)

    assert assemble(with_null, [row("a", "A.")], []).skipped == {"has an empty text": 1}


def test_one_part_is_cut_by_group() -> None:
    source = [row(str(number), f"text {number}", number % 2, f"group {number // 3}") for number in range(3000)]
    rows = assemble(read, source, None)
    train, heldout = ({row.example.group for row in part} for part in (rows.train, rows.heldout))
    assert not train & heldout and len(rows.train) + len(rows.heldout) == 3000
    assert abs(len(heldout) - 200) < 4 * 12.7
    assert all(row.example.id.startswith("train-") for row in rows.heldout)


@settings(deadline=None)
@given(st.randoms(use_true_random=False), st.booleans())
def test_rows_do_not_hang_on_row_order(rng: random.Random, one_part: bool) -> None:
    source = [row(str(n), f"text {n % 25}", n % 2, f"group {n // 4}") for n in range(40)]
    heldout = None if one_part else [row(str(n), f"text {n}", 0) for n in range(20, 30)]
    found = assemble(read, source, heldout)
    mixed = assemble(read, rng.sample(source, 40), heldout and rng.sample(heldout, 10))
    assert set(found.train) == set(mixed.train) and set(found.heldout) == set(mixed.heldout)


def test_group_that_no_part_could_hold_is_left_out() -> None:
    # Four pairs, each with a question of the one before: a chain over both parts. And a group of three.
    chain = [row(str(n), f"pair {n}", n % 2, f"question {n}", f"question {n + 1}") for n in range(4)]
    three = [row(str(n), f"pair {n}", n % 2, "other") for n in range(4, 7)]
    rows = assemble(read, [*chain[:3], *three, row("7", " ")], [chain[3]])
    assert without_large_groups(rows, 4) == rows
    fewer = without_large_groups(rows, 3)
    assert [found.example.id for found in fewer.train] == ["train-4", "train-5", "train-6"] and fewer.heldout == ()
    assert fewer.skipped == {"has an empty text": 1, "is in a group of more than 3 rows": 4}


def parts(train: int, heldout: int, per_group: int = 2) -> Rows:
    """Rows in groups of `per_group`; the first held-out row shares its group with the first training rows."""
    groups = [f"g{number // per_group}" for number in range(train)]
    others = ["g0", *(f"h{number}" for number in range(heldout - 1))]
    of = {"train": groups, "heldout": others}
    made = {
        part: tuple(
            Row(Example(f"{part}-{number}", group, (f"text {number}",)), number % 2) for number, group in enumerate(names)
        )
        for part, names in of.items()
    }
    return Rows(made["train"], made["heldout"])


def test_a_small_heldout_part_is_joined_by_whole_groups_that_it_does_not_know() -> None:
    rows = parts(train=400 * 4, heldout=400)
    grown = with_enough_heldout(rows, "task")
    assert len(grown.heldout) == 800 and grown.moved == 400 and grown.heldout[:400] == rows.heldout
    moved = {row.example.group for row in grown.heldout[400:]}
    assert len(moved) == 200 and "g0" not in moved and not moved & {row.example.group for row in grown.train}
    assert sorted((*grown.train, *grown.heldout), key=str) == sorted((*rows.train, *rows.heldout), key=str)
    shuffled = Rows(rows.train[::-1], rows.heldout)
    assert {row.example.id for row in with_enough_heldout(shuffled, "task").heldout} == {
        row.example.id for row in grown.heldout
    }


@pytest.mark.parametrize(("train", "heldout"), [(400 * 4 - 1, 400), (10_000, 800), (10_000, 801), (20, 10)])
def test_a_heldout_part_stays_if_it_is_large_or_the_training_part_is_small(train: int, heldout: int) -> None:
    rows = parts(train, heldout)
    assert with_enough_heldout(rows, "task") is rows
