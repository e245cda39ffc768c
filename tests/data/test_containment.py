"""Rows that contain others, or are contained in them, are dropped from the right part, by seed, and counted."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from w2s_mlflow.data import containment, splits
from w2s_mlflow.exceptions import ConfigError
from w2s_mlflow.records import Example, Row, Rows
from w2s_mlflow.tasks._rows import ParsedRow, Source, assemble


def read(source: Source, part: str) -> ParsedRow:
    texts = source["texts"]
    return ParsedRow(f"{part}-{source['n']}", texts, source["n"] % 2, compared=source.get("compared"))


def rows(train: Sequence[tuple[str, ...]], heldout: Sequence[tuple[str, ...]]) -> Rows:
    return assemble(read, *([{"n": n, "texts": texts} for n, texts in enumerate(part)] for part in (train, heldout)))


def sentence(n: int) -> str:
    return f"the film number {n} was {n * n} times as good as {n + 1}"


BEFORE = "as all of my friends have often said"
"""Long enough for a sentence with it to be no near-duplicate of the sentence."""
TRAIN = [(sentence(n),) for n in range(100)]
HELDOUT = [(f"nothing like {n} here",) for n in range(40)]


def partners(train: Sequence[tuple[str, ...]], heldout: Sequence[tuple[str, ...]]) -> dict[str, frozenset[str]]:
    return dict(containment.partners(rows(train, heldout)))


def test_partners_are_training_rows_that_contain_a_row_or_are_contained_in_it() -> None:
    train = [("a good film about two old friends",), ("film about two old friends",), ("a good film",), ("old friends",)]
    heldout = [("he said it is a good film about two old friends he had",), ("about Two OLD <i>friends</i>!",), ("good film",)]
    assert partners(train, heldout) == {
        "train-0": {"train-1"},
        "train-1": {"train-0"},
        "heldout-0": {"train-0", "train-1"},  # "a good film" has three words: too few
        "heldout-1": {"train-0", "train-1"},
    }


def test_a_row_of_several_texts_is_contained_if_each_of_its_texts_is() -> None:
    premise = "a man in a red coat walks along the river"
    train = [(premise, "it rains"), ("nothing", "else")]
    heldout = [(premise[:20], "it rains"), ("it rains", premise[:20]), (premise[:20], "it snows")]
    assert partners(train, heldout) == {"heldout-0": {"train-0"}, "heldout-1": {"train-0"}}


def test_rows_of_one_group_and_rows_that_are_not_compared_have_no_partners() -> None:
    assert containment.partners(Rows((Row(Example("a", "g", ("x",)), 0),), ())) == {}
    texts = [("a good film about two old friends",), ("film about two old friends",)]
    source = [{"n": n, "texts": text, "compared": ()} for n, text in enumerate(texts)]
    assert containment.partners(assemble(read, source, [])) == {}
    joined = Rows(tuple(Row(Example(str(n), "one", text), 0, {}, text) for n, text in enumerate(texts)), ())
    assert containment.partners(joined) == {}


def test_held_out_rows_are_dropped_once_for_all_seeds() -> None:
    contained = {n: (f"{BEFORE} {sentence(n)}",) for n in range(0, 40, 4)}
    found = rows(TRAIN, [contained.get(n, texts) for n, texts in enumerate(HELDOUT)])
    pool = splits.pool("t", found)
    kept = {row.example.id for part in (pool.selection, pool.test) for group in part for row in group}
    assert kept == {f"heldout-{n}" for n in range(40)} - {f"heldout-{n}" for n in contained}
    assert sum(pool.dropped.values()) == 10 and set(pool.dropped) <= {"selection", "test"}
    first, second = (splits.split_task(pool, seed=seed, train_size=100, test_size=pool.test_rows()) for seed in (0, 1))
    assert (first.selection, first.test) == (second.selection, second.test)
    assert pool.dropped.items() <= first.dropped.items()


def test_transfer_rows_are_dropped_for_the_seed_that_has_the_other_row_in_supervision() -> None:
    """Row 50 + n is a part of row n. Which pairs are divided hangs on the seed; supervision loses none."""
    pairs = [(sentence(n).partition(" as good")[0],) if n >= 50 else (f"{sentence(n + 50)} again",) for n in range(100)]
    pool = splits.pool("t", rows(pairs, HELDOUT))
    drops = []
    for seed in range(4):
        found = splits.split_task(pool, seed=seed, train_size=100, test_size=pool.test_rows())
        supervision = {example.id for example in found.supervision + found.supervision_validation}
        transfer = {example.id for example in found.transfer + found.transfer_validation}
        divided = [n for n in range(50) if (f"train-{n}" in supervision) != (f"train-{n + 50}" in supervision)]
        assert len(supervision) == 50 and len(transfer) == 50 - len(divided) and len(divided) > 10
        assert found.dropped.get("transfer", 0) + found.dropped.get("transfer_validation", 0) == len(divided)
        drops.append(divided)
    assert len({tuple(divided) for divided in drops}) == 4


def test_a_part_of_which_nothing_is_left_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"^every row of selection contains a row of the training part of the task t, or is"):
        splits.pool("t", rows(TRAIN, [(f"{BEFORE} {sentence(n)}",) for n in range(10)]))
