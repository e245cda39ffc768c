"""Groups of rows: against a slow restatement, what is no key, nearly equal texts, and nothing that depends on row order."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from w2s_mlflow.tasks._groups import (
    COMMON,
    FEW,
    NEAR,
    DraftTexts,
    Key,
    by_group,
    by_id,
    by_text,
    by_value,
    digest,
    grouped,
    normalised,
)

SENTENCE = "a man in a red coat walks slowly along the river bank with his two small dogs at dawn"

rows = st.lists(
    st.builds(
        lambda text, names: (tuple(key for name in names for key in by_value(name=name)), (text,), None),
        st.sampled_from(["one", "two", "Three", "three", "four ", "five", "six", "seven"]),
        st.lists(st.integers(0, 7), max_size=2),
    ),
    max_size=14,
)


def groups_of(found: Sequence[DraftTexts]) -> list[str]:
    return grouped(found)[0]


def text(*texts: str, keys: Sequence[Key] = ()) -> DraftTexts:
    """A row with these texts and keys."""
    return tuple(keys), texts, None


def together(*found: DraftTexts) -> bool:
    """Whether the rows form one group."""
    return len(set(groups_of(found))) == 1


def slow_groups(found: Sequence[DraftTexts]) -> list[str]:
    """Let names flow along shared ones until nothing moves; a group is called by its smallest name."""
    names = [{*(key.name for key in keys), digest("text", *map(normalised, sorted(texts)))} for keys, texts, _ in found]
    moved = True
    while moved:
        joined = [set().union(*(other for other in names if other & own)) for own in names]
        moved, names = joined != names, joined
    return [min(own) for own in names]


@settings(deadline=None)
@given(rows)
def test_groups_are_those_of_the_slow_restatement(found: list[DraftTexts]) -> None:
    assert groups_of(found) == slow_groups(found)


@settings(deadline=None)
@given(rows, st.randoms(use_true_random=False))
def test_groups_do_not_depend_on_row_order(found: list[DraftTexts], rng: random.Random) -> None:
    order = rng.sample(range(len(found)), len(found))
    groups = groups_of(found)
    assert groups_of([found[place] for place in order]) == [groups[place] for place in order]


def test_groups_join_through_others() -> None:
    chain = [text(f"row {n}", keys=by_value(a=n) + by_value(a=n + 1)) for n in range(4)]
    assert together(*chain) and not together(chain[0], chain[1], chain[3])


def test_equal_texts_are_one_group_whatever_their_order_or_writing() -> None:
    assert together(text("A cat.", "It sat."), text("a  CAT.", "It sat."))
    assert together(text("A cat.", "It sat."), text("It sat.", "A cat."))
    assert not together(text("A cat.", "It sat."), text("A cat."))
    assert together(text("Caf\u00e9\u00a0au lait"), text("CAFE\u0301 au\tlait"))
    assert together(text("\u201cIt\u2019s <b>ready</b>\u201d \u2014 she said"), text("It's ready, she said"))


def test_keys_are_of_one_field() -> None:
    assert by_value(number=7) == by_value(number="7") and by_value(a="x")[0].name != by_value(b="x")[0].name
    assert by_text(premise="One.", hypothesis="Two.") == by_text(premise="One.") + by_text(hypothesis="Two.")


@pytest.mark.parametrize("empty", ["", " ", "\n", None])
def test_an_empty_value_is_no_key(empty: str | None) -> None:
    assert by_value(source=empty) == by_text(premise=empty) == by_group(empty) == ()


def shared(value: Sequence[Key], count: int, rows: int) -> int:
    """The size of the largest group, where `count` of the rows have the key."""
    found = [text(f"row {n} {n * n} {n + 7}", keys=value if n < count else ()) for n in range(rows)]
    groups = groups_of(found)
    return max(map(groups.count, groups))


def test_a_value_that_many_rows_share_by_chance_is_no_key() -> None:
    for key in (by_text(start="He"), by_value(word="make")):
        assert shared(key, 20, 2000) == 20 and COMMON * 2000 == 20
        assert shared(key, 21, 2000) == 1
        assert shared(key, FEW, 50) == FEW and shared(key, FEW + 1, 50) == 1


def test_what_a_file_calls_a_group_and_a_long_text_are_keys_however_many_rows_have_them() -> None:
    assert shared(by_group("mine"), 100, 200) == shared(by_id(game="abc"), 100, 200) == 100
    passage = " ".join(f"word{n}" for n in range(20))
    assert shared(by_text(passage=passage), 100, 200) == 100
    assert shared(by_text(passage=passage.removesuffix(" word19")), 100, 200) == 1


def test_equal_texts_stay_together_however_many_rows_have_them() -> None:
    assert together(*[text("yes") for _ in range(40)])


def test_nearly_equal_texts_join_groups() -> None:
    """A word more at the end: 17 of 18 n-grams are shared. Another word in the middle: 14 of 20."""
    row = text(SENTENCE)
    assert together(row, text(f"{SENTENCE} again")) and not together(row, text(SENTENCE.replace("river", "canal")))
    assert together(text(SENTENCE, "It rains."), text("it rains", f"{SENTENCE} again"))
    other = "she plays the violin in the old theatre of the town every other week"
    alike = [text("first", keys=by_text(premise=SENTENCE)), text(other, keys=by_text(premise=f"{SENTENCE}!!! again"))]
    assert together(*alike)
    apart = [text("first", keys=by_text(premise=SENTENCE)), text(other, keys=by_text(hypothesis=f"{SENTENCE} again"))]
    assert not together(*apart)


def test_joins_are_counted() -> None:
    found = [
        text("one", keys=by_text(premise="p")),
        text("two", keys=by_text(premise="p")),
        text(SENTENCE),
        text(f"{SENTENCE} again"),
        text("alone"),
    ]
    assert grouped(found)[1] == {"premise": 2, NEAR: 1}
    assert grouped([]) == ([], {}) and grouped(found[:1])[1] == {}


def test_rows_that_are_not_compared_join_only_if_their_texts_are_equal() -> None:
    board = "White: Kg1 Qd3 Pa2. Black: Kg8 Pb7 Pc6 Pf7. White to move."
    rows: list[DraftTexts] = [((), (board, move), ()) for move in ("d3h7", "d3d8", "D3H7")]
    groups = groups_of(rows)
    assert groups[0] == groups[2] != groups[1]
    assert together(text(board, "d3h7"), text(board, "d3d8"))  # as words, they are nearly equal


def test_only_compared_texts_count() -> None:
    question = "What happened as a result of all of this, and what was it that came of it in the end?"
    rows: list[DraftTexts] = [((), (f"{word} {question}", "Yes."), (word, "Yes.")) for word in ("Rain.", "Snow.")]
    assert not together(*rows) and together(*[(keys, texts, None) for keys, texts, _ in rows])


def test_digest_is_the_same_on_every_machine() -> None:
    # sha256("a\x1fb"), by another program.
    assert digest("a", "b") == "f04cdced9736a69d"
    assert digest("ab") != digest("a", "b") != digest("b", "a")
