"""The cut: sizes, groups that stay together, and nothing that depends on row order."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from w2s_mlflow.data import splits
from w2s_mlflow.exceptions import ConfigError
from w2s_mlflow.records import NO_LABEL, Example, JoinError, Row, Rows

slow_machine = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

TRAINING = ("supervision", "supervision_validation", "transfer", "transfer_validation")
PARTS = (*TRAINING, "selection", "test")


def rows(sizes: Sequence[int], part: str) -> tuple[Row, ...]:
    """Rows in groups of the given sizes; ids and labels say nothing of the group."""
    groups = [group for group, size in enumerate(sizes) for _ in range(size)]
    return tuple(
        Row(Example(f"{part}-{n * 7919 % 10007}", f"{part} group {group}", (f"question {part} {n}",)), n % 3 % 2)
        for n, group in enumerate(groups)
    )


def plain(train: int = 400, heldout: int = 100) -> Rows:
    """Rows that are groups of their own."""
    return Rows(rows([1] * train, "train"), rows([1] * heldout, "heldout"))


def cut(found: Rows, *, seed: int = 0, train_size: int = 200, test_size: int = 60, task: str = "t") -> splits.Split:
    return splits.split_task(splits.pool(task, found), seed=seed, train_size=train_size, test_size=test_size)


def ids(found: splits.Split, *parts: str) -> list[str]:
    return [example.id for part in parts for example in getattr(found, part)]


def groups(found: splits.Split, *parts: str) -> set[str]:
    return {example.group for part in parts for example in getattr(found, part)}


def shuffled(found: Rows, seed: int) -> Rows:
    train, heldout = (tuple(random.Random(seed).sample(part, len(part))) for part in (found.train, found.heldout))
    return Rows(train, heldout)


grouped = st.builds(
    lambda train, heldout: Rows(rows(train, "train"), rows(heldout, "heldout")),
    st.lists(st.integers(1, 4), min_size=60, max_size=100),
    st.lists(st.integers(1, 4), min_size=20, max_size=40),
)


@pytest.mark.parametrize("train_size", [40, 200, 400])
@pytest.mark.parametrize("test_size", [1, 60, 75])
def test_sizes_of_rows_that_are_groups_of_their_own(train_size: int, test_size: int) -> None:
    found = cut(plain(), train_size=train_size, test_size=test_size)
    half = train_size // 2
    expected = [half - half // 10, half // 10, half - half // 10, half // 10, 25, test_size]
    assert [len(getattr(found, part)) for part in PARTS] == expected


@settings(slow_machine, max_examples=40)
@given(grouped, st.integers(0, 5))
def test_no_row_and_no_group_stands_in_two_parts(found: Rows, seed: int) -> None:
    made = cut(found, seed=seed, train_size=60, test_size=10)
    assert len(ids(made, *PARTS)) == len(set(ids(made, *PARTS)))
    for part in PARTS:
        others = [other for other in PARTS if other != part]
        assert groups(made, part).isdisjoint(groups(made, *others))


@settings(slow_machine, max_examples=40)
@given(grouped, st.integers(0, 5))
def test_groups_are_never_torn_apart(found: Rows, seed: int) -> None:
    made = cut(found, seed=seed, train_size=60, test_size=10)
    size = {row.example.group: 0 for row in (*found.train, *found.heldout)}
    for row in (*found.train, *found.heldout):
        size[row.example.group] += 1
    for part in PARTS[:-1]:
        assert len(ids(made, part)) == sum(size[group] for group in groups(made, part))


@settings(slow_machine, max_examples=40)
@given(grouped, st.integers(0, 5))
def test_halves_of_groups_are_about_as_large_as_asked(found: Rows, seed: int) -> None:
    made = cut(found, seed=seed, train_size=60, test_size=10)
    for half in ("supervision", "transfer"):
        assert abs(len(ids(made, half, f"{half}_validation")) - 30) <= 3  # a group has four rows at most


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7])
def test_at_most_so_many_test_rows_as_asked(size: int) -> None:
    found = Rows(rows([1] * 60, "train"), rows([size] * 40, "heldout"))
    assert 0 < len(ids(cut(found, train_size=60, test_size=10), "test")) <= 10


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 20, 60, 119])
def test_every_part_holds_rows_or_the_sizes_are_refused(size: int) -> None:
    found = Rows(rows([size] * (120 // size) + [1] * (120 % size), "train"), rows([1] * 40, "heldout"))
    try:
        made = cut(found, train_size=40, test_size=10)
    except ConfigError:
        return
    assert [part for part in PARTS if not getattr(made, part)] == []


def test_test_and_selection_are_the_same_for_every_seed_and_training_size() -> None:
    made = [cut(plain(), seed=seed, train_size=size) for seed, size in ((0, 200), (1, 200), (2, 40))]
    assert len({(one.test, one.selection) for one in made}) == 1


def test_a_smaller_test_set_is_part_of_a_larger_one() -> None:
    small, large = (cut(plain(), test_size=size) for size in (20, 60))
    assert large.test[:20] == small.test


def test_seeds_cut_the_training_part_differently() -> None:
    first, second = (set(ids(cut(plain(), seed=seed), "supervision")) for seed in (0, 1))
    assert 10 < len(first & second) < 80  # two draws of 90 among 400 share about 20


def test_tasks_are_cut_differently() -> None:
    first, second = (cut(plain(), task=task) for task in ("one", "two"))
    assert set(ids(first, "test")) != set(ids(second, "test"))
    assert set(ids(first, "transfer")) != set(ids(second, "transfer"))


def test_neither_half_is_chosen_by_id_or_label() -> None:
    found = plain(4000, 1000)
    truth = {row.example.id: row.label for row in found.train}
    made = cut(found, train_size=4000, test_size=700)
    for half in (made.supervision, made.transfer):
        assert np.mean([truth[example.id] for example in half]) == pytest.approx(1 / 3, abs=0.05)


@pytest.mark.parametrize("seed", range(3))
def test_order_of_rows_does_not_matter(seed: int) -> None:
    found = Rows(rows([1, 2, 3, 4] * 30, "train"), rows([1, 2] * 30, "heldout"))
    first, second = cut(found, seed=seed), cut(shuffled(found, seed), seed=seed)
    assert [getattr(first, part) for part in PARTS] == [getattr(second, part) for part in PARTS]
    assert first.digest == second.digest


def test_the_rest_is_what_neither_half_has_in_groups_of_its_own_and_without_labels() -> None:
    found = Rows(rows([1, 2, 3] * 60, "train"), rows([1] * 100, "heldout"))
    pool, parts = splits.pool("t", found), cut(found, train_size=200).parts()
    rest = splits.unused_questions(pool, seed=0, train_size=200, size=1000)
    halves = [example for name in TRAINING for example in parts[name]]
    asked = [*rest.train, *rest.validation]
    assert {example.id for example in asked} | {example.id for example in halves} == {row.example.id for row in found.train}
    assert len(asked) + len(halves) == len(found.train) and not {e.group for e in asked} & {e.group for e in halves}
    assert not {e.group for e in rest.train} & {e.group for e in rest.validation}
    assert 0.08 < len(rest.validation) / len(asked) < 0.12


def test_a_smaller_rest_is_of_the_same_rows_and_its_digest_hangs_on_text_and_not_on_labels() -> None:
    def rest(found: Rows, size: int) -> splits.Questions:
        return splits.unused_questions(splits.pool("t", found), seed=0, train_size=200, size=size)

    found = plain()
    small, large = rest(found, 50), rest(found, 1000)
    assert len(small.train) == 45 and len(small.validation) == 5 and len(large.train) + len(large.validation) == 200
    assert {*small.train, *small.validation} < {*large.train, *large.validation} and small.digest != large.digest
    turned = Rows(tuple(Row(row.example, 1 - row.label) for row in found.train), found.heldout)
    assert rest(turned, 50) == small
    with pytest.raises(
        ConfigError, match=r"^--train-size must be small enough to leave rows outside both halves \(the task has 400"
    ):
        splits.unused_questions(splits.pool("t", found), seed=0, train_size=400, size=50)


@pytest.mark.parametrize(("train", "size"), [(202, 50), (400, 2)])
def test_two_questions_are_enough_one_of_them_for_validation(train: int, size: int) -> None:
    """Two rows are left, or two are asked for."""
    rest = splits.unused_questions(splits.pool("t", plain(train)), seed=0, train_size=200, size=size)
    assert (len(rest.train), len(rest.validation)) == (1, 1)


def test_one_question_is_too_few() -> None:
    with pytest.raises(ConfigError, match=r"^--train-size must be small enough to leave rows outside both halves"):
        splits.unused_questions(splits.pool("t", plain(201)), seed=0, train_size=200, size=50)


def test_training_rows_whose_group_is_held_out_are_left_out() -> None:
    found = plain()
    held = {row.example.group for row in found.heldout[:50]}
    leaked = tuple(Row(Example(f"leak-{n}", group, ("the same passage",)), 0) for n, group in enumerate(sorted(held)))
    made = cut(Rows(found.train + leaked, found.heldout), train_size=400)
    assert not [id_ for id_ in ids(made, *TRAINING) if id_.startswith("leak")]
    with pytest.raises(ConfigError, match="at most 400, the number of training rows of this task, got 402"):
        cut(Rows(found.train + leaked, found.heldout), train_size=402)


def test_a_split_holds_no_label() -> None:
    made = cut(plain())
    assert set(vars(made)) == {*PARTS, "digest", "dropped"} and list(made.parts()) == list(PARTS)
    assert {type(example) for part in made.parts().values() for example in part} == {Example}


def test_the_digest_of_a_row_is_that_of_its_whole_content() -> None:
    row = Row(Example("1", "g", ("a", "b")), 1)
    others = [Row(Example("2", "g", ("a", "b")), 1), Row(Example("1", "g", ("a b",)), 1), Row(Example("1", "g", ("a", "b")), 0)]
    digests = {splits.row_digest(other) for other in (row, *others)}
    assert len(digests) == 4 and {len(digest) for digest in digests} == {16}
    assert splits.row_digest(Row(Example("1", "g", ("a", "b")), 1)) == splits.row_digest(row)


@settings(slow_machine, max_examples=20)
@given(st.permutations(rows([1, 2, 1], "train")))
def test_digest_does_not_depend_on_order(order: Sequence[Row]) -> None:
    assert splits.digest(order) == splits.digest(rows([1, 2, 1], "train"))


@pytest.mark.parametrize(
    "changed",
    [
        Row(Example("a", "g", ("one", "two"), ("x", "y")), 1),
        Row(Example("a", "g", ("one", "2"), ("x", "y")), 0),
        Row(Example("a", "g", ("one two",), ("x", "y")), 0),
        Row(Example("a", "g", ("one", "two"), ("y", "x")), 0),
        Row(Example("b", "g", ("one", "two"), ("x", "y")), 0),
    ],
    ids=["label", "segment", "joined segments", "order of candidates", "id"],
)
def test_digest_changes_with_the_content(changed: Row) -> None:
    rest = rows([1, 1], "train")
    assert splits.digest((*rest, Row(Example("a", "g", ("one", "two"), ("x", "y")), 0))) != splits.digest((*rest, changed))


def test_digest_changes_with_a_row_more() -> None:
    assert splits.digest(rows([1, 1], "train")) != splits.digest(rows([1, 1, 1], "train"))


def test_digest_of_a_cut_is_that_of_the_rows_of_each_part() -> None:
    found = plain()
    made = cut(found)
    every = (*found.train, *found.heldout)
    used = {part: splits.digest(row for row in every if row.example.id in set(ids(made, part))) for part in PARTS}
    text = json.dumps(used, sort_keys=True, separators=(",", ":"))
    assert made.digest == hashlib.sha256(text.encode()).hexdigest()
    assert made.digest != cut(found, seed=1).digest


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"train_size": 39}, r"^--train-size must be at least 40.*, got 39$"),
        ({"train_size": -1}, r"^--train-size must be at least 40.*, got -1$"),
        ({"train_size": 401}, r"^--train-size must be at most 400, the number of training rows of this task, got 401$"),
        ({"test_size": 0}, r"^--test-size must be at least 1, got 0$"),
        ({"test_size": 76}, r"^--test-size must be at most 75, the number of test rows of this task, got 76$"),
    ],
)
def test_impossible_sizes_are_refused(sizes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        cut(plain(), **sizes)


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ([20] * 3, "4 groups of rows in its training part, but it has 3, with 60 rows in total"),
        ([], "4 groups of rows in its training part, but it has 0, with 0 rows in total"),
        ([20] * 4, "2 groups of rows in its held-out part, but it has 1, with 20 rows in total"),
    ],
)
def test_too_few_groups_are_named_with_their_part(sizes: list[int], said: str) -> None:
    with pytest.raises(ConfigError, match=f"^the task t must have at least {said}$"):
        splits.pool("t", Rows(tuple(rows(sizes, "train")), tuple(rows([20], "heldout"))))


def of_one_class(part: tuple[Row, ...]) -> tuple[Row, ...]:
    return tuple(Row(row.example, 1) for row in part)


@pytest.mark.parametrize("part", ["training", "test"])
def test_a_task_of_two_classes_needs_both_in_training_and_test(part: str) -> None:
    found = plain()
    changed = {
        "training": Rows(of_one_class(found.train), found.heldout),
        "test": Rows(found.train, of_one_class(found.heldout)),
    }
    said = f"^the task t must have rows of both classes, but every label of its {part} part is 1$"
    with pytest.raises(ConfigError, match=said):
        splits.pool("t", changed[part])


def test_rows_without_a_label_are_no_class() -> None:
    """Of a task whose training part has no ground truth, only the test part is checked."""
    found = plain()
    unknown = tuple(Row(row.example, NO_LABEL) for row in found.train)
    pool = splits.pool("t", Rows(unknown, found.heldout))
    assert len(splits.split_task(pool, seed=0, train_size=200, test_size=60).transfer) == 90
    mixed = (*unknown[:200], *of_one_class(found.train[200:]))
    with pytest.raises(ConfigError, match=r"every label of its training part is 1$"):
        splits.pool("t", Rows(mixed, found.heldout))


def test_a_task_of_more_classes_may_lack_some() -> None:
    """The classes of such a task are places in a list of candidates."""
    found = Rows(of_one_class(plain().train), of_one_class(plain().heldout))
    pool = splits.pool("t", found, classes=3)
    assert len(splits.split_task(pool, seed=0, train_size=200, test_size=60).supervision) == 90


def test_an_id_that_occurs_twice_is_refused() -> None:
    found = plain(40, 10)
    with pytest.raises(JoinError, match=r"^1 of a task's 51 ids are duplicates$"):
        splits.pool("t", Rows(found.train, (*found.heldout, found.train[3])))


@pytest.mark.parametrize("record", [splits.Split, splits.Questions, splits.Pool])
def test_a_split_does_not_change(record: Any) -> None:
    """Stages share splits through a cache."""
    made = record(*([()] * len(dataclasses.fields(record))))
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(made, dataclasses.fields(record)[0].name, 1)


@pytest.mark.parametrize("size", [1, 10])
def test_of_three_held_out_groups_one_is_for_selection(size: int) -> None:
    """One group is the least that a part holds, even if it has more than a quarter of the rows."""
    pool = splits.pool("t", Rows(plain().train, rows([size] * 3, "heldout")), classes=3)
    assert [len(part) for part in (pool.selection, pool.test)] == [1, 2]
    assert (pool.train_rows(), pool.test_rows()) == (400, 2 * size)


def labelled(sizes: Sequence[tuple[int, int]]) -> list[list[Row]]:
    """Groups of so many rows of class 0 and of class 1."""
    return [
        [Row(Example(f"{group}-{n}", f"group {group}", ("text",)), int(n >= zeros)) for n in range(zeros + ones)]
        for group, (zeros, ones) in enumerate(sizes)
    ]


def test_balance_takes_rows_from_every_group_before_any_loses_all() -> None:
    thinned = splits.balanced(labelled([(3, 1), (2, 1), (1, 0)]))
    assert [[row.label for row in group] for group in thinned] == [[0, 1], [0, 1]] and thinned[0][0].example.id == "0-0"


@slow_machine
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=20))
def test_balanced_rows_are_some_of_the_old_ones_with_as_many_of_each_class(sizes: list[tuple[int, int]]) -> None:
    given_groups = [group for group in labelled(sizes) if group]
    found = [row for group in splits.balanced(given_groups) for row in group]
    counts = [sum(row.label == label for row in found) for label in (0, 1)]
    before = [sum(pair[label] for pair in sizes) for label in (0, 1)]
    assert counts == ([min(before)] * 2 if min(before) else before)
    assert {row.example.id for row in found} <= {row.example.id for group in given_groups for row in group}


def test_balance_leaves_transfer_alone_and_balances_what_may_read_labels() -> None:
    train, heldout = (tuple(Row(row.example, int(n % 4 == 0)) for n, row in enumerate(part)) for part in plain_parts())
    labels = {row.example.id: row.label for row in (*train, *heldout)}
    pool = splits.pool("t", Rows(train, heldout), balance=True)
    found = splits.split_task(pool, seed=0, train_size=400, test_size=30, balance=True)
    unbalanced = splits.split_task(splits.pool("t", Rows(train, heldout)), seed=0, train_size=400, test_size=30)
    for part in ("supervision", "supervision_validation", "selection"):
        assert np.mean([labels[id_] for id_ in ids(found, part)]) == 0.5
    assert found.transfer == unbalanced.transfer and found.transfer_validation == unbalanced.transfer_validation
    assert found.digest != unbalanced.digest


def plain_parts() -> tuple[tuple[Row, ...], tuple[Row, ...]]:
    found = plain()
    return found.train, found.heldout


def test_a_group_enters_the_digest() -> None:
    one, other = (Row(Example("a", group, ("text",)), 0) for group in ("g", "h"))
    assert splits.digest([one]) != splits.digest([other])


def test_a_half_of_one_class_is_refused() -> None:
    train = tuple(Row(row.example, int(row.example.id == "train-0")) for row in plain().train)
    with pytest.raises(ConfigError, match=r"large enough that supervision has rows of both classes \(every label is 0\)"):
        cut(Rows(train, plain().heldout), seed=3, train_size=40)
