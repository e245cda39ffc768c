"""Gold labels of a task, the rows of a probe's concept, and the names under which reads are counted."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import pytest

from tests.conftest import SMALL
from w2s_mlflow import tasks
from w2s_mlflow.data import gold, loading
from w2s_mlflow.exceptions import ConfigError
from w2s_mlflow.records import NO_LABEL, Example, Gold, Ints


@dataclass(frozen=True)
class Options:
    """Options of a split."""

    task: str = "chess"
    seed: int = 3
    train_size: int | None = None
    test_size: int | None = None
    balance: bool = False
    data_dir: str | None = None


def labels(task: str, examples: tuple[Example, ...]) -> list[int]:
    label = {row.example.id: row.label for row in loading.rows(task, None)}
    return [label[example.id] for example in examples]


def test_a_concept_is_the_first_rows_of_supervision_its_validation_slice_and_the_first_rows_of_test() -> None:
    config = Options(**SMALL)
    split = loading.resolve_and_split(config)[1]
    found = gold.concept(config, "chess", 50)
    fit, choose, test = split.supervision[:50], split.supervision_validation, split.test[:50]
    assert found.examples == fit + choose + test and len(fit) == len(test) == 50 and len(choose) == 10
    assert [part.tolist() for part in (found.fit_N, found.choose_N, found.test_N)] == [
        labels("chess", part) for part in (fit, choose, test)
    ]
    assert found.test_groups == tuple(example.group for example in test)
    assert (found.task, found.digest) == (tasks.find("chess"), split.digest)
    assert found.reads == {"gold/supervision/probe": 60, "gold/test/probe": 50}


@pytest.mark.parametrize(("task", "other"), [("chess", "chess_preference"), ("chess_preference", "chess")])
def test_a_concept_of_another_task_has_that_task_s_sizes(task: str, other: str) -> None:
    found = gold.concept(Options(task=task, **SMALL), other, 50)
    digests = [loading.resolve_and_split(Options(task=other, **sizes))[1].digest for sizes in ({}, SMALL)]
    assert found.digest == digests[0] != digests[1]


def test_a_concept_is_not_balanced() -> None:
    found = gold.concept(Options(balance=True, **SMALL), "chess", 50)
    digests = [loading.resolve_and_split(Options(balance=balance, **SMALL))[1].digest for balance in (False, True)]
    assert found.digest == digests[0] != digests[1]


def test_an_array_is_split_into_the_parts_of_a_concept() -> None:
    examples = tuple(Example(name, name, ("text",)) for name in "abcdef")
    fit_N, choose_N, test_N = (np.zeros(rows, dtype=np.int64) for rows in (3, 1, 2))
    concept = gold.Concept(tasks.find("chess"), "digest", examples, fit_N, choose_N, test_N, ("e", "f"), {})
    assert [part.tolist() for part in concept.parts(np.arange(6))] == [[0, 1, 2], [3], [4, 5]]
    assert [part.shape for part in concept.parts(np.zeros((6, 4)))] == [(3, 4), (1, 4), (2, 4)]


def test_a_concept_does_not_change() -> None:
    found = gold.concept(Options(**SMALL), "chess", 50)
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.digest = "other"  # type: ignore[misc]


def test_every_ledger_of_a_task_starts_empty() -> None:
    config = Options(**SMALL)
    test = loading.resolve_and_split(config)[1].test
    first, second = gold.gold_of(config), gold.gold_of(config)
    read_N: Ints = gold.read(first, test, "test", "report")
    assert read_N.tolist() == labels("chess", test)
    assert (gold.reads(first), gold.reads(second)) == ({"gold/test/report": 150}, {})


def test_missing_ground_truth_is_an_error_of_the_options() -> None:
    examples = [Example(name, name, ("text",)) for name in "abc"]
    without = Gold({"a": 1, "b": NO_LABEL, "c": NO_LABEL})
    said = "^the task lacks ground truth: 2 of 3 rows of test have no label, but report needs labels$"
    with pytest.raises(ConfigError, match=said):
        gold.read(without, examples, "test", "report")
    assert gold.reads(without) == {}
