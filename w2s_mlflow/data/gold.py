"""Gold labels, and a ledger that counts how many of them are read.

Code that trains on weak labels receives a `Split`, which holds no gold labels. `Gold` returns gold labels and counts how
many are read for each reason. pipeline/ground_truth.py trains on gold labels; pipeline/scoring.py scores stored predictions
against them.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from w2s_mlflow.data import loading
from w2s_mlflow.data.loading import SplitOptions
from w2s_mlflow.exceptions import ConfigError
from w2s_mlflow.records import Example, Gold, Ints, NoLabelError
from w2s_mlflow.tasks import Task


@dataclass(frozen=True)
class Concept:
    """Rows and gold labels of a concept. A concept is the ground truth of one task, which a linear probe learns to predict.

    `examples` has three parts in this order: rows to fit the probe, rows to choose its layer, and rows to score it. The first
    part comes from `supervision`, the second from its validation slice, the third from `test`. `fit_N`, `choose_N` and
    `test_N` are the gold labels of the three parts. `reads` holds metrics: the numbers of gold labels that were read.
    """

    task: Task
    digest: str
    examples: tuple[Example, ...]
    fit_N: Ints
    choose_N: Ints
    test_N: Ints
    test_groups: tuple[str, ...]
    reads: dict[str, float]

    def parts(self, rows: NDArray[Any]) -> list[NDArray[Any]]:
        """Split an array with one entry per example into three: for fitting the probe, choosing its layer and scoring it."""
        return np.split(rows, np.cumsum([len(self.fit_N), len(self.choose_N)]))


def concept(config: SplitOptions, task: str, rows: int) -> Concept:
    """Return the concept of a task, with at most `rows` rows to fit a probe and at most `rows` rows to score it.

    The task is split with the student's seed.

    Raises:
        ConfigError: the task is not found or too small to be split.
    """
    sizes = (config.train_size, config.test_size) if task == config.task else (None, None)
    options = _ConceptOptions(task, config.seed, *sizes, balance=False, data_dir=config.data_dir)
    resolved, split, declared = loading.resolve_and_split(options)
    gold, parts = gold_of(resolved), (split.supervision[:rows], split.supervision_validation, split.test[:rows])
    fit_N, choose_N = (read(gold, part, "supervision", "probe") for part in parts[:2])
    test_N = read(gold, parts[2], "test", "probe")
    examples, groups = sum(parts, ()), tuple(example.group for example in parts[2])
    return Concept(declared, split.digest, examples, fit_N, choose_N, test_N, groups, reads(gold))


@dataclass(frozen=True)
class _ConceptOptions:
    """Options for splitting the task that a probe predicts."""

    task: str
    seed: int
    train_size: int | None
    test_size: int | None
    balance: bool
    data_dir: str | None


def read(gold: Gold, examples: Sequence[Example], part: str, reason: str) -> Ints:
    """Return the gold labels of examples and count these reads in the ledger. Raises ConfigError if a label is missing."""
    try:
        return gold.read(examples, split=part, reason=reason)
    except NoLabelError as error:
        raise ConfigError(f"the task lacks ground truth: {error}") from error


def reads(gold: Gold) -> dict[str, float]:
    """Return the ledger as metrics. `gold/<split>/<reason>` counts the gold labels of a split that were read for a reason."""
    return {f"gold/{name}": count for name, count in gold.ledger().items()}


def gold_of(config: SplitOptions) -> Gold:
    """Return the gold labels of a task, with a ledger that has counted no reads yet."""
    return Gold(_labels(config.task, config.data_dir))


@functools.lru_cache(maxsize=8)
def _labels(task: str, data_dir: str | None) -> dict[str, int]:
    return {row.example.id: row.label for row in loading.rows(task, data_dir)}
